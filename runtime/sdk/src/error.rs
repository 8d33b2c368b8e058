//! What goes wrong: failures that outlive the process, and errors of a call.

use std::fmt;
use std::time::Duration;

use mainspring_proto::TaskFailureDetails;

/// The result of an orchestration, an activity or an operation. `?` turns any error into a [`Failure`].
///
/// ```
/// use mainspring_sdk::Result;
///
/// fn read(cents: &str) -> Result<u64> {
///     Ok(cents.parse()?)
/// }
///
/// assert_eq!(read("1200"), Ok(1200));
/// assert_eq!(read("x").unwrap_err().to_string(), "ParseIntError: invalid digit found in string");
/// ```
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why an orchestration, an activity or an operation failed: plain data, stored in history and readable in every language.
///
/// Any error becomes one with `?`; its type is then the error's type name without path, its message the error with its
/// causes. For that reason this type is not itself an `Error`.
///
/// ```
/// use mainspring_sdk::{Failure, Result};
///
/// fn parse(text: &str) -> Result<u32> {
///     if text.is_empty() {
///         return Err(Failure::new("EmptyOrder", "the order has no lines").non_retriable());
///     }
///     Ok(text.parse::<u32>()?)
/// }
///
/// assert_eq!(parse("x").unwrap_err().error_type(), "ParseIntError");
/// assert!(!parse("").unwrap_err().is_retriable());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    // Boxed: results are moved about far more often than failures are made.
    details: Box<TaskFailureDetails>,
}

impl Failure {
    /// A failure of a type of your own, by which callers tell it from others.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self::from_details(TaskFailureDetails {
            error_type: error_type.into(),
            error_message: message.into(),
            ..Default::default()
        })
    }

    /// An input, output or state that cannot be written or read. Trying again would not help.
    pub(crate) fn payload(reason: impl Into<String>) -> Self {
        Self::new("PayloadError", reason).non_retriable()
    }

    /// A failure from anything that can be shown, for error types that are no `std::error::Error`.
    pub fn other(error: impl fmt::Display) -> Self {
        Self::new("Error", error.to_string())
    }

    /// No retry policy tries again after it.
    #[must_use]
    pub fn non_retriable(mut self) -> Self {
        self.details.is_non_retriable = true;
        self
    }

    /// The failure that caused this one.
    #[must_use]
    pub fn caused_by(mut self, inner: Failure) -> Self {
        self.details.inner_failure = Some(inner.details);
        self
    }

    /// The type's name, such as `ParseIntError`.
    pub fn error_type(&self) -> &str {
        &self.details.error_type
    }

    /// Whether the type's name is `error_type`; names that other languages write with their package count by the last part.
    pub fn is(&self, error_type: &str) -> bool {
        self.error_type() == error_type
            || self.error_type().rsplit(['.', ':']).next() == Some(error_type)
    }

    /// What happened, for people.
    pub fn message(&self) -> &str {
        &self.details.error_message
    }

    /// Where it happened, if the worker's language told.
    pub fn stack_trace(&self) -> Option<&str> {
        self.details.stack_trace.as_deref()
    }

    /// What caused it.
    pub fn inner(&self) -> Option<Failure> {
        let details = self.details.inner_failure.clone()?;
        Some(Self { details })
    }

    /// False: no retry policy tries again.
    pub fn is_retriable(&self) -> bool {
        !self.details.is_non_retriable
    }

    pub(crate) fn from_details(details: TaskFailureDetails) -> Self {
        Self {
            details: Box::new(details),
        }
    }

    pub(crate) fn into_details(self) -> TaskFailureDetails {
        *self.details
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.error_type(), self.message())
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        // A failed task that an orchestrator passes on with `?` keeps what failed as its cause.
        let any: &dyn std::error::Error = &error;
        if let Some(task) = any.downcast_ref::<TaskError>() {
            return task.to_failure();
        }
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self::new(type_name_of::<E>(), message)
    }
}

/// The last part of a type's path, without generic parameters.
pub(crate) fn type_name_of<T: ?Sized>() -> &'static str {
    last_part(std::any::type_name::<T>())
}

/// `shop::orders::Order<T>` gives `Order`.
fn last_part(path: &'static str) -> &'static str {
    let mut depth = 0;
    let (mut start, mut end) = (0, path.len());
    for (position, letter) in path.char_indices().rev() {
        match letter {
            '>' => depth += 1,
            '<' => {
                depth -= 1;
                // Parameters of the last part; those of an earlier one are left behind with it.
                if depth == 0 {
                    end = position;
                }
            }
            ':' if depth == 0 => {
                start = position + 1;
                break;
            }
            _ => {}
        }
    }
    path.get(start..end).unwrap_or(path)
}

/// Why something that an orchestrator waited for did not succeed.
///
/// ```
/// use mainspring_sdk::{ActivityContext, OrchestrationContext, Result};
///
/// async fn pay(ctx: OrchestrationContext, cents: u64) -> Result<String> {
///     match ctx.call(charge, cents).await {
///         Err(error) if error.is("CardDeclined") => Ok("sent a bill instead".to_owned()),
///         charged => Ok(charged?),
///     }
/// }
/// # async fn charge(_: ActivityContext, cents: u64) -> Result<String> { Ok(format!("charged {cents}")) }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The activity, child or operation failed, after all retries that its policy allowed.
    #[error("{task} failed: {failure}")]
    Failed {
        /// What failed, such as `activity 'charge' (task 3)`.
        task: String,
        /// Why.
        failure: Failure,
    },
    /// An input could not be written, or an output could not be read as the type that was asked for.
    #[error("{task}: {reason}")]
    Payload {
        /// Whose payload.
        task: String,
        /// What the converter said.
        reason: String,
    },
    /// What was asked for is not allowed here, such as calling an entity that the critical section did not lock.
    #[error("{0}")]
    Misuse(String),
}

impl TaskError {
    /// Why the task failed; `None` if it was never run.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// Whether the task failed with this error type.
    pub fn is(&self, error_type: &str) -> bool {
        self.failure().is_some_and(|failure| failure.is(error_type))
    }

    fn to_failure(&self) -> Failure {
        match self {
            Self::Failed { failure, .. } => {
                let mut outer = Failure::new("TaskFailed", self.to_string());
                outer.details.is_non_retriable = !failure.is_retriable();
                outer.caused_by(failure.clone())
            }
            Self::Payload { .. } => Failure::payload(self.to_string()),
            Self::Misuse(_) => Failure::new("Misuse", self.to_string()).non_retriable(),
        }
    }
}

/// Why a call to the scheduler, or a worker, did not succeed.
///
/// ```no_run
/// # use std::time::Duration;
/// use mainspring_sdk::{Client, Error};
///
/// # async fn run(client: Client) -> Result<(), Error> {
/// let order = client.instance::<String>("order-17");
/// match order.result_within(Duration::from_secs(30)).await {
///     Ok(receipt) => println!("{receipt}"),
///     Err(Error::TimedOut { .. }) => println!("not yet"),
///     Err(Error::Orchestration { failure, .. }) => println!("{failure}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The scheduler refused the call. Nothing was changed, unless the code is `Unavailable` or `DeadlineExceeded`: then it may
    /// have been, and the call may be made again.
    #[error("the scheduler refused: {} ({:?})", .0.message(), .0.code())]
    Refused(Box<tonic::Status>),
    /// No connection, or an address that is none.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address as it was given.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// A payload could not be written or read.
    #[error("{0}")]
    Payload(String),
    /// No instance has this id.
    #[error("there is no instance '{0}'")]
    NotFound(String),
    /// An instance has this id already, and is not to be replaced; see [`Reuse`](crate::Reuse).
    #[error("there is an instance '{0}' already")]
    AlreadyExists(String),
    /// It did not happen in time.
    #[error("instance '{instance}' did not get there within {waited:?}")]
    TimedOut {
        /// Who was waited for.
        instance: String,
        /// How long.
        waited: Duration,
    },
    /// The orchestration ended without success.
    #[error("orchestration '{instance}' ended {status}: {failure}")]
    Orchestration {
        /// Its id.
        instance: String,
        /// How it ended.
        status: crate::client::Status,
        /// Why.
        failure: Failure,
    },
    /// A setting that cannot work, told when the worker starts.
    #[error("{0}")]
    Setting(String),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

#[cfg(test)]
mod tests {
    use super::last_part;

    #[test]
    fn the_name_of_a_type_or_function_is_the_last_part_of_its_path() {
        for (path, name) in [
            ("order", "order"),
            ("shop::orders::order", "order"),
            ("shop::order<alloc::vec::Vec<u8>>", "order"),
            ("<shop::Shop<u8> as shop::Sells>::sell", "sell"),
            ("shop::main::{{closure}}::order", "order"),
        ] {
            assert_eq!(last_part(path), name);
        }
    }
}
