//! What a plain `async fn` has to look like to be an orchestration or an activity, and the name it goes by.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use crate::activity::ActivityContext;
use crate::convert::Payload;
use crate::error::{Failure, Result, type_name_of};
use crate::orchestration::OrchestrationContext;

/// A future in a box, as handlers give them.
///
/// ```
/// use std::borrow::Cow;
/// use mainspring_sdk::{Activity, ActivityContext, BoxFuture, Result};
///
/// /// An activity that is no function, since it needs something of its own.
/// struct Mail { from: String }
///
/// impl Activity<String, ()> for Mail {
///     fn name(&self) -> Cow<'static, str> { "mail".into() }
///
///     fn run(&self, _: ActivityContext, to: String) -> BoxFuture<Result<()>> {
///         let from = self.from.clone();
///         Box::pin(async move { Ok(println!("from {from} to {to}")) })
///     }
/// }
/// ```
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An orchestrator: `async fn(OrchestrationContext, Input) -> Result<Output>`.
///
/// Every such function is one. Its name is the function's, without path; [`named`] gives another.
///
/// ```
/// use mainspring_sdk::{ActivityContext, OrchestrationContext, Result};
///
/// async fn greet(ctx: OrchestrationContext, names: Vec<String>) -> Result<Vec<String>> {
///     let greetings = names.into_iter().map(|name| ctx.call(hello, name));
///     Ok(ctx.try_join_all(greetings).await?)
/// }
///
/// async fn hello(_: ActivityContext, name: String) -> Result<String> {
///     Ok(format!("Hello {name}!"))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "this is not an orchestrator",
    label = "has to be an `async fn(OrchestrationContext, Input) -> Result<Output>`",
    note = "both parameters have to be there (use `_: ()` where there is no input), input and output have to be serde types that are owned, the error has to be one that `Failure` can be made from, and the future has to be `Send`"
)]
pub trait Orchestration<Input: Payload, Output: Payload>: Send + Sync + 'static {
    /// By which it is registered and started.
    fn name(&self) -> Cow<'static, str>;

    /// The version that this code is for; `None`: any that has no code of its own.
    fn version(&self) -> Option<&str> {
        None
    }

    /// Starts it.
    fn run(&self, ctx: OrchestrationContext, input: Input) -> BoxFuture<Result<Output>>;
}

/// An activity: `async fn(ActivityContext, Input) -> Result<Output>`.
///
/// Every such function is one. Its name is the function's, without path; [`named`] gives another. It may do what it likes, and is
/// run at least once for each time that it is scheduled.
///
/// ```
/// use mainspring_sdk::{ActivityContext, Result};
///
/// async fn charge(ctx: ActivityContext, cents: u64) -> Result<String> {
///     // The same for every delivery of this task, so that the payment provider can recognise a repeat.
///     let key = ctx.idempotency_key();
///     Ok(format!("charged {cents} under {key}"))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "this is not an activity",
    label = "has to be an `async fn(ActivityContext, Input) -> Result<Output>`",
    note = "both parameters have to be there (use `_: ()` where there is no input), input and output have to be serde types that are owned, the error has to be one that `Failure` can be made from, and the future has to be `Send`"
)]
pub trait Activity<Input: Payload, Output: Payload>: Send + Sync + 'static {
    /// By which it is registered and called.
    fn name(&self) -> Cow<'static, str>;

    /// The version that this code is for; `None`: any that has no code of its own.
    fn version(&self) -> Option<&str> {
        None
    }

    /// Starts it.
    fn run(&self, ctx: ActivityContext, input: Input) -> BoxFuture<Result<Output>>;
}

impl<F, Fut, Input, Output, E> Orchestration<Input, Output> for F
where
    F: Fn(OrchestrationContext, Input) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<Output, E>> + Send + 'static,
    Input: Payload,
    Output: Payload,
    E: Into<Failure>,
{
    fn name(&self) -> Cow<'static, str> {
        function_name::<F>()
    }

    fn run(&self, ctx: OrchestrationContext, input: Input) -> BoxFuture<Result<Output>> {
        let future = self(ctx, input);
        Box::pin(async move { future.await.map_err(Into::into) })
    }
}

impl<F, Fut, Input, Output, E> Activity<Input, Output> for F
where
    F: Fn(ActivityContext, Input) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<Output, E>> + Send + 'static,
    Input: Payload,
    Output: Payload,
    E: Into<Failure>,
{
    fn name(&self) -> Cow<'static, str> {
        function_name::<F>()
    }

    fn run(&self, ctx: ActivityContext, input: Input) -> BoxFuture<Result<Output>> {
        let future = self(ctx, input);
        Box::pin(async move { future.await.map_err(Into::into) })
    }
}

/// The function's name without path.
///
/// # Panics
///
/// For closures: they have none.
fn function_name<F>() -> Cow<'static, str> {
    let name = type_name_of::<F>();
    assert!(
        name != "{{closure}}",
        "a closure has no name: give it one with named(\"…\", …), or make it a function"
    );
    Cow::Borrowed(name)
}

/// An orchestrator or activity under a name, and perhaps for a version, of its own.
///
/// ```
/// use mainspring_sdk::{Activity, ActivityContext, Failure, named};
///
/// // A closure has no name by itself, but may hold what an activity needs.
/// let from = "shop@example.org".to_owned();
/// let mail = named("mail", move |_: ActivityContext, to: String| {
///     let from = from.clone();
///     async move { Ok::<_, Failure>(println!("from {from} to {to}")) }
/// });
/// assert_eq!(mail.name(), "mail");
/// ```
#[derive(Debug, Clone)]
pub struct Named<F> {
    name: Cow<'static, str>,
    version: Option<Cow<'static, str>>,
    handler: F,
}

/// Gives an orchestrator or an activity another name than its function's.
///
/// ```
/// # use mainspring_sdk::{named, Activity, ActivityContext, Result};
/// async fn charge_v2(_: ActivityContext, cents: u64) -> Result<u64> { Ok(cents) }
///
/// let charge = named("Charge", charge_v2).for_version("2.0");
/// assert_eq!(charge.name(), "Charge");
/// ```
pub fn named<F>(name: impl Into<Cow<'static, str>>, handler: F) -> Named<F> {
    Named {
        name: name.into(),
        version: None,
        handler,
    }
}

impl<F> Named<F> {
    /// This code is for exactly this version; other code may be registered under the name for others.
    #[must_use]
    pub fn for_version(mut self, version: impl Into<Cow<'static, str>>) -> Self {
        self.version = Some(version.into());
        self
    }
}

impl<F: Orchestration<I, O>, I: Payload, O: Payload> Orchestration<I, O> for Named<F> {
    fn name(&self) -> Cow<'static, str> {
        self.name.clone()
    }

    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn run(&self, ctx: OrchestrationContext, input: I) -> BoxFuture<Result<O>> {
        self.handler.run(ctx, input)
    }
}

impl<F: Activity<I, O>, I: Payload, O: Payload> Activity<I, O> for Named<F> {
    fn name(&self) -> Cow<'static, str> {
        self.name.clone()
    }

    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn run(&self, ctx: ActivityContext, input: I) -> BoxFuture<Result<O>> {
        self.handler.run(ctx, input)
    }
}
