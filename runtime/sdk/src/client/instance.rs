//! One instance: how it is, how it ends, and what can be done to it.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime};

use mainspring_proto::purge_instances_request::Request as PurgeRequest;
use mainspring_proto::{
    GetInstanceRequest, GetInstanceResponse, OrchestrationState, PurgeInstancesRequest,
    RaiseEventRequest, RestartInstanceRequest, ResumeRequest, RewindInstanceRequest,
    StreamInstanceHistoryRequest, SuspendRequest, TerminateRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, History, Status, question_deadline};
use crate::convert::{Payload, Payloads};
use crate::error::{Error, Failure};
use crate::time::system_time;

/// An orchestration under an id, whose output is read as `O`. Cheap to clone.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mainspring_sdk::{Client, OrchestrationContext, Result};
/// # async fn expense(ctx: OrchestrationContext, _: u64) -> Result<bool> { Ok(ctx.event("Approval").await?) }
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let expense = client.start(expense, 12_000).id("expense-17").await?;
/// expense.raise_event("Approval", true).await?;
///
/// // Another program has it by its id.
/// let expense = client.instance::<bool>("expense-17");
/// println!("{}", expense.result_within(Duration::from_secs(30)).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Instance<O> {
    client: Client,
    id: String,
    output: PhantomData<fn() -> O>,
}

impl<O> Clone for Instance<O> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            id: self.id.clone(),
            output: PhantomData,
        }
    }
}

/// Which of the two waits.
#[derive(Clone, Copy)]
enum Until {
    Started,
    Ended,
}

impl<O: Payload> Instance<O> {
    pub(super) fn new(client: Client, id: String) -> Self {
        Self {
            client,
            id,
            output: PhantomData,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it is now, with inputs and outputs; `None`: there is none of this id.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses, or is away for longer than ten seconds.
    pub async fn state(&self) -> Result<Option<InstanceState>, Error> {
        let response = self
            .client
            .patiently(question_deadline(), || async {
                let connection = &self.client.connection;
                let request = connection.request(self.get());
                connection.service().get_instance(request).await
            })
            .await?;
        Ok(self.read(response.into_inner()))
    }

    /// Waits until it has begun to run. One that does not exist yet is waited for, too.
    ///
    /// # Errors
    ///
    /// When it does not happen in time.
    pub async fn wait_until_started(&self, within: Duration) -> Result<InstanceState, Error> {
        self.wait(Until::Started, Some(within)).await
    }

    /// Waits until it has ended, however it does. One that does not exist yet is waited for, too.
    ///
    /// # Errors
    ///
    /// When it does not happen in time.
    pub async fn wait_until_ended(&self, within: Duration) -> Result<InstanceState, Error> {
        self.wait(Until::Ended, Some(within)).await
    }

    /// Waits until it has ended and gives its output. As long as it takes: a scheduler that is away is asked again.
    ///
    /// # Errors
    ///
    /// [`Error::Orchestration`] when it ended without success.
    pub async fn result(&self) -> Result<O, Error> {
        let state = self.wait(Until::Ended, None).await?;
        self.output_of(&state)
    }

    /// The same, but not for longer than that.
    ///
    /// # Errors
    ///
    /// As [`Instance::result`], and [`Error::TimedOut`].
    pub async fn result_within(&self, within: Duration) -> Result<O, Error> {
        let state = self.wait(Until::Ended, Some(within)).await?;
        self.output_of(&state)
    }

    fn output_of(&self, state: &InstanceState) -> Result<O, Error> {
        if state.status == Status::Completed {
            return state.output();
        }
        let failure = state.failure.clone().unwrap_or_else(|| {
            Failure::new(
                state.status.to_string(),
                state.raw_output().unwrap_or("without a reason"),
            )
        });
        Err(Error::Orchestration {
            instance: self.id.clone(),
            status: state.status,
            failure,
        })
    }

    async fn wait(&self, until: Until, within: Option<Duration>) -> Result<InstanceState, Error> {
        let deadline = within.map(|within| Instant::now() + within);
        let asked = self.client.patiently(deadline, || async {
            let connection = &self.client.connection;
            let mut request = connection.request(self.get());
            if let Some(deadline) = deadline {
                request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            let mut service = connection.service();
            match until {
                Until::Started => service.wait_for_instance_start(request).await,
                Until::Ended => service.wait_for_instance_completion(request).await,
            }
        });
        let answer = match within {
            // Beyond the call's own deadline: one that the network swallowed.
            Some(within) => tokio::time::timeout(within + Duration::from_secs(1), asked)
                .await
                .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))),
            None => asked.await,
        };
        let response = match answer {
            Ok(response) => response.into_inner(),
            Err(status) => {
                return Err(match (status.code(), within) {
                    (tonic::Code::NotFound, _) => Error::NotFound(self.id.clone()),
                    (
                        tonic::Code::DeadlineExceeded
                        | tonic::Code::Cancelled
                        | tonic::Code::Unavailable,
                        Some(waited),
                    ) => Error::TimedOut {
                        instance: self.id.clone(),
                        waited,
                    },
                    _ => status.into(),
                });
            }
        };
        self.read(response)
            .ok_or_else(|| Error::NotFound(self.id.clone()))
    }

    /// Sends it an event. An instance that has ended, or does not exist, ignores it.
    ///
    /// # Errors
    ///
    /// When the payload cannot be written, or the scheduler refuses.
    pub async fn raise_event(
        &self,
        name: impl Into<String>,
        payload: impl Serialize,
    ) -> Result<(), Error> {
        let connection = &self.client.connection;
        let input = connection
            .payloads()
            .encode(&payload)
            .map_err(Error::Payload)?;
        let request = connection.request(RaiseEventRequest {
            instance_id: self.id.clone(),
            name: name.into(),
            input,
        });
        connection.service().raise_event(request).await?;
        Ok(())
    }

    /// Holds it still: no code of it runs until it is resumed.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn suspend(&self, reason: &str) -> Result<(), Error> {
        let connection = &self.client.connection;
        let request = connection.request(SuspendRequest {
            instance_id: self.id.clone(),
            reason: Some(reason.to_owned()),
        });
        connection.service().suspend_instance(request).await?;
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn resume(&self, reason: &str) -> Result<(), Error> {
        let connection = &self.client.connection;
        let request = connection.request(ResumeRequest {
            instance_id: self.id.clone(),
            reason: Some(reason.to_owned()),
        });
        connection.service().resume_instance(request).await?;
        Ok(())
    }

    /// Ends it and everything that it started. Activities on their way finish; their results are dropped.
    ///
    /// # Errors
    ///
    /// When the output cannot be written, or the scheduler refuses.
    pub async fn terminate(&self, output: impl Serialize) -> Result<(), Error> {
        self.end(&output, true).await
    }

    /// Ends it alone; its children go on.
    ///
    /// # Errors
    ///
    /// As [`Instance::terminate`].
    pub async fn terminate_alone(&self, output: impl Serialize) -> Result<(), Error> {
        self.end(&output, false).await
    }

    async fn end(&self, output: &impl Serialize, recursive: bool) -> Result<(), Error> {
        let connection = &self.client.connection;
        let output = connection
            .payloads()
            .encode(output)
            .map_err(Error::Payload)?;
        let request = connection.request(TerminateRequest {
            instance_id: self.id.clone(),
            output,
            recursive,
        });
        connection.service().terminate_instance(request).await?;
        Ok(())
    }

    /// Runs a failed instance again from what failed; what succeeded is kept.
    ///
    /// # Errors
    ///
    /// When it has not failed, or there is none.
    pub async fn rewind(&self, reason: &str) -> Result<(), Error> {
        let connection = &self.client.connection;
        let request = connection.request(RewindInstanceRequest {
            instance_id: self.id.clone(),
            reason: Some(reason.to_owned()),
        });
        connection.service().rewind_instance(request).await?;
        Ok(())
    }

    /// Starts it once more with the same input, under a new id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn restart_as_new(&self) -> Result<Self, Error> {
        self.start_again(true).await
    }

    /// Starts it once more with the same input, under the same id.
    ///
    /// # Errors
    ///
    /// When it has not ended, or there is none.
    pub async fn restart(&self) -> Result<Self, Error> {
        self.start_again(false).await
    }

    async fn start_again(&self, restart_with_new_instance_id: bool) -> Result<Self, Error> {
        let connection = &self.client.connection;
        let request = connection.request(RestartInstanceRequest {
            instance_id: self.id.clone(),
            restart_with_new_instance_id,
        });
        let response = connection.service().restart_instance(request).await?;
        Ok(Self::new(
            self.client.clone(),
            response.into_inner().instance_id,
        ))
    }

    /// Deletes it and its history. False: there was none, or it has not ended.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn purge(&self) -> Result<bool, Error> {
        let connection = &self.client.connection;
        let request = connection.request(PurgeInstancesRequest {
            request: Some(PurgeRequest::InstanceId(self.id.clone())),
            recursive: false,
            ..Default::default()
        });
        let response = connection.service().purge_instances(request).await?;
        Ok(response.into_inner().deleted_instance_count > 0)
    }

    /// The history of its current generation.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn history(&self) -> Result<History, Error> {
        let request = StreamInstanceHistoryRequest {
            instance_id: self.id.clone(),
            execution_id: None,
            for_work_item_processing: false,
        };
        let events = self.client.connection.history(request).await?;
        Ok(History::new(events))
    }

    fn get(&self) -> GetInstanceRequest {
        GetInstanceRequest {
            instance_id: self.id.clone(),
            get_inputs_and_outputs: true,
        }
    }

    fn read(&self, response: GetInstanceResponse) -> Option<InstanceState> {
        let state = response.orchestration_state.filter(|_| response.exists)?;
        Some(InstanceState::new(
            state,
            self.client.connection.payloads().clone(),
        ))
    }
}

/// How an instance was when it was asked about.
///
/// ```no_run
/// # use mainspring_sdk::{Client, Result};
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// if let Some(order) = client.instance::<String>("order-17").state().await? {
///     println!("{} of {} cents is {}", order.name, order.input::<u64>()?, order.status);
///     if let Some(progress) = order.custom_status::<String>()? {
///         println!("it says: {progress}");
///     }
///     if let Some(failure) = &order.failure {
///         println!("it failed: {failure}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InstanceState {
    /// Its id.
    pub id: String,
    /// The id of its current generation.
    pub execution_id: Option<String>,
    /// The orchestration's name.
    pub name: String,
    /// The version that it was started with.
    pub version: Option<String>,
    /// Where it is in its life.
    pub status: Status,
    /// When it was created.
    pub created_at: Option<SystemTime>,
    /// When it last changed.
    pub updated_at: Option<SystemTime>,
    /// When it ended.
    pub ended_at: Option<SystemTime>,
    /// Not to be run before.
    pub scheduled_at: Option<SystemTime>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whose child it is.
    pub parent_instance_id: Option<String>,
    /// The tags that it was started with.
    pub tags: BTreeMap<String, String>,
    input: Option<String>,
    output: Option<String>,
    custom_status: Option<String>,
    payloads: Payloads,
}

impl InstanceState {
    pub(super) fn new(state: OrchestrationState, payloads: Payloads) -> Self {
        Self {
            id: state.instance_id,
            execution_id: state.execution_id,
            name: state.name,
            version: state.version,
            status: Status::read(state.orchestration_status),
            created_at: system_time(state.created_timestamp),
            updated_at: system_time(state.last_updated_timestamp),
            ended_at: system_time(state.completed_timestamp),
            scheduled_at: system_time(state.scheduled_start_timestamp),
            failure: state.failure_details.map(Failure::from_details),
            parent_instance_id: state.parent_instance_id,
            tags: state.tags,
            input: state.input,
            output: state.output,
            custom_status: state.custom_status,
            payloads,
        }
    }

    /// The input, read as `T`.
    ///
    /// # Errors
    ///
    /// When it is of another shape.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read("input", self.input.as_deref())
    }

    /// The output, read as `T`.
    ///
    /// # Errors
    ///
    /// When it is of another shape.
    pub fn output<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read("output", self.output.as_deref())
    }

    /// What the orchestrator last set, read as `T`; `None`: nothing.
    ///
    /// # Errors
    ///
    /// When it is of another shape.
    pub fn custom_status<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        match &self.custom_status {
            None => Ok(None),
            Some(status) => self.read("custom status", Some(status)).map(Some),
        }
    }

    /// The output as it is stored.
    pub fn raw_output(&self) -> Option<&str> {
        self.output.as_deref()
    }

    /// The input as it is stored.
    pub fn raw_input(&self) -> Option<&str> {
        self.input.as_deref()
    }

    /// The custom status as it is stored.
    pub fn raw_custom_status(&self) -> Option<&str> {
        self.custom_status.as_deref()
    }

    fn read<T: DeserializeOwned>(&self, what: &str, text: Option<&str>) -> Result<T, Error> {
        self.payloads
            .decode(text)
            .map_err(|reason| Error::Payload(format!("the {what} of '{}' {reason}", self.id)))
    }
}
