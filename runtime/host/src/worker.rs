//! What workers ask: a stream of work items, and the fate of each item.

use mainspring_core::id::HubId;
use mainspring_core::message::FailureDetails;
use mainspring_core::wire;
use mainspring_proto::{ActivityResponse, OrchestratorResponse};

use prost::Message as _;

use crate::activation::{Input, Outcome};
use crate::api::{Peer, StreamOptions, WorkKind};
use crate::dispatch::{StreamId, WorkItems};
use crate::error::{Error, ErrorKind};
use crate::host::Host;

/// Whether clients answer this error by sending the same completion again (S-4.7).
pub(crate) fn is_repeated(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal)
}

impl Host {
    /// Opens a stream of work items. It starts with a health ping and never ends without an error (S-13.2, S-1.14).
    pub fn open_stream(&self, hub: HubId, options: StreamOptions) -> Result<WorkItems, Error> {
        tracing::info!(
            hub = self.inner.services.hub_name(hub),
            worker = options.worker,
            agent = options.peer.user_agent,
            "worker connected"
        );
        if self.is_stopping() {
            return Err(Error::stopping());
        }
        let services = &self.inner.services;
        services
            .dispatch
            .open_stream(hub, options, services.config.ping_interval)
    }

    /// Takes an orchestration worker's response; a stale one is answered like success (S-4.4). `over`: the stream that it came over, if
    /// its worker may keep the instance for what comes next on that stream.
    pub async fn complete_orchestration(
        &self,
        hub: HubId,
        _peer: &Peer,
        over: Option<StreamId>,
        response: OrchestratorResponse,
    ) -> Result<(), Error> {
        let _credit = self.credit().await?;
        let dispatch = &self.inner.services.dispatch;
        let Some((key, token)) =
            dispatch.find(hub, &response.instance_id, &response.completion_token)
        else {
            return Ok(());
        };
        let completed = async {
            if !response.instance_id.is_empty() && response.instance_id != key.instance.as_str() {
                let message = format!(
                    "the response names instance '{}', its completion token belongs to '{}'",
                    response.instance_id, key.instance
                );
                return Err(Error::invalid(message));
            }
            let bytes = response.encoded_len();
            let is_named = !response.completion_token.is_empty();
            let result = Box::new(wire::episode_result(response)?);
            self.ask(key.clone(), |reply| Input::Completed {
                token,
                is_named,
                over,
                result,
                bytes,
                reply,
            })
            .await
        };
        let answer = completed.await;
        if let Err(error) = &answer {
            dispatch.refuse(token, is_repeated(error));
        }
        answer
    }

    /// Takes an activity's outcome; a stale one is answered like success (S-4.4). A result over the payload limit becomes a failure (S-14.4).
    pub async fn complete_activity(
        &self,
        hub: HubId,
        _peer: &Peer,
        response: ActivityResponse,
    ) -> Result<(), Error> {
        let credit = self.credit().await?;
        let ActivityResponse {
            instance_id,
            task_id,
            result,
            failure_details,
            completion_token,
        } = response;
        let dispatch = &self.inner.services.dispatch;
        let Some(answered) = dispatch.take_activity(hub, &instance_id, task_id, &completion_token)
        else {
            return Ok(());
        };
        let limit = self.inner.services.config.limits.payload_bytes_max;
        let outcome = match (failure_details, result) {
            (Some(failure), _) => Outcome::Failed(wire::failure(failure)),
            (None, Some(result)) if result.len() > limit => {
                let message = format!(
                    "the activity's result has {} bytes; at most {limit} are allowed",
                    result.len()
                );
                Outcome::Failed(FailureDetails::new("PayloadTooLarge", &message, true))
            }
            (None, result) => Outcome::Completed(result),
        };
        let (fence, task_id) = (answered.fence().clone(), answered.task_id());
        let answer = self
            .ask(answered.key().clone(), |reply| Input::ActivityDone {
                fence,
                task_id,
                outcome,
                credit: Some(credit),
                reply,
            })
            .await;
        if let Err(error) = &answer {
            dispatch.restore(answered, is_repeated(error));
        }
        answer
    }

    /// Takes a work item back; it is delivered again after a growing back-off (S-13.17). Unknown tokens are fine.
    pub async fn abandon(
        &self,
        hub: HubId,
        _peer: &Peer,
        kind: WorkKind,
        token: &str,
    ) -> Result<(), Error> {
        self.inner.services.dispatch.abandon(hub, kind, token);
        Ok(())
    }

    /// A message of this connection could not be decoded: its streams end and their items are delivered again (S-13.28).
    pub fn connection_failed(&self, connection: u64) {
        self.inner.services.dispatch.connection_failed(connection);
    }
}
