//! What clients ask of the scheduler, one method each. All answer only when their whole effect is durable (S-0.6).

use mainspring_core::id::{FreshIds, HubId, InstanceId, InstanceKey};
use mainspring_core::message::NewInstance;
use mainspring_core::orchestration::{ReusePolicy, View};
use tokio::sync::oneshot;

use crate::activation::Input;
use crate::api::HistoryStream;
use crate::clock::RandomIds;
use crate::error::Error;
use crate::host::Host;
use crate::partition::Until;

/// Most ids in one batch request (S-14.1).
const BATCH_IDS_MAX: usize = 500;

impl Host {
    pub(crate) fn key(hub: HubId, id: &str) -> Result<InstanceKey, Error> {
        let instance = InstanceId::parse(id).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(InstanceKey { hub, instance })
    }

    /// Creates an instance, or decides by the reuse policy what becomes of the one that has its id (S-10.3).
    pub async fn start_instance(
        &self,
        hub: HubId,
        request: NewInstance,
        policy: ReusePolicy,
    ) -> Result<InstanceId, Error> {
        let _credit = self.credit_for_new_work().await?;
        let key = InstanceKey {
            hub,
            instance: request.instance.clone(),
        };
        self.ask(key, |reply| Input::Create {
            request: Box::new(request),
            policy,
            reply,
        })
        .await
    }

    /// What there is to know of an instance; `None`: missing (S-11.1), ids that cannot exist included.
    pub async fn get(
        &self,
        hub: HubId,
        id: &str,
        include_payloads: bool,
    ) -> Result<Option<View>, Error> {
        let Ok(key) = Self::key(hub, id) else {
            return Ok(None);
        };
        if self.is_stopping() {
            return Err(Error::stopping());
        }
        self.ask(key, |reply| Input::View {
            include_payloads,
            reply,
        })
        .await
    }

    /// Waits until the instance has started; for a missing one, until it exists and has (S-11.6). Dropping the future gives up the wait.
    pub async fn wait_started(
        &self,
        hub: HubId,
        id: &str,
        include_payloads: bool,
    ) -> Result<View, Error> {
        self.wait(hub, id, Until::Started, include_payloads).await
    }

    /// Waits until the instance is terminal.
    pub async fn wait_completed(
        &self,
        hub: HubId,
        id: &str,
        include_payloads: bool,
    ) -> Result<View, Error> {
        self.wait(hub, id, Until::Completed, include_payloads).await
    }

    async fn wait(
        &self,
        hub: HubId,
        id: &str,
        until: Until,
        include_payloads: bool,
    ) -> Result<View, Error> {
        let mut key = Self::key(hub, id)?;
        loop {
            if self.is_stopping() {
                return Err(Error::stopping());
            }
            let (reply, answer) = oneshot::channel();
            let wait = Input::Wait {
                until,
                include_payloads,
                reply,
            };
            self.inner.services.placement().send(key.clone(), wait);
            tokio::select! {
                answer = answer => if let Ok(view) = answer {
                    return Ok(view);
                },
                () = self.stopped() => return Err(Error::stopping()),
            }
            // A hub that was begun anew: the wait goes on there.
            match self.inner.hubs.successor(key.hub) {
                Some(hub) => key.hub = hub,
                None => return Err(self.dropped()),
            }
        }
    }

    /// Puts an event into the mailbox. Missing and finished instances drop it, which is no error (S-8.4).
    pub async fn raise_event(
        &self,
        hub: HubId,
        id: &str,
        name: String,
        input: Option<String>,
    ) -> Result<(), Error> {
        let key = Self::key(hub, id)?;
        if name.is_empty() {
            return Err(Error::invalid("the event name is empty"));
        }
        let _credit = self.credit_for_new_work().await?;
        self.ask(key, |reply| Input::Raise { name, input, reply })
            .await
    }

    /// Suspends an active instance (S-9.2).
    pub async fn suspend(&self, hub: HubId, id: &str, reason: Option<String>) -> Result<(), Error> {
        let key = Self::key(hub, id)?;
        let _credit = self.credit().await?;
        self.ask(key, |reply| Input::Suspend { reason, reply })
            .await
    }

    /// Resumes a suspended instance (S-9.4).
    pub async fn resume(&self, hub: HubId, id: &str, reason: Option<String>) -> Result<(), Error> {
        let key = Self::key(hub, id)?;
        let _credit = self.credit().await?;
        self.ask(key, |reply| Input::Resume { reason, reply }).await
    }

    /// Terminates an active instance; recursive: with all its active descendants, and answers when the last is (S-9.7, S-9.8).
    pub async fn terminate(
        &self,
        hub: HubId,
        id: &str,
        output: Option<String>,
        is_recursive: bool,
    ) -> Result<(), Error> {
        let key = Self::key(hub, id)?;
        // No credit is held while a recursive termination waits.
        drop(self.credit().await?);
        let ask = self.ask(key, |reply| Input::Terminate {
            output,
            is_recursive,
            reply,
        });
        tokio::select! {
            answer = ask => answer,
            () = self.stopped() => Err(Error::stopping()),
        }
    }

    /// Terminates many; answers with the ids that were not touched (S-9.11).
    pub async fn skip_graceful_terminations(
        &self,
        hub: HubId,
        ids: Vec<String>,
        reason: Option<String>,
    ) -> Result<Vec<String>, Error> {
        check_batch(ids.len())?;
        let _credit = self.credit().await?;
        let mut untouched = Vec::new();
        for id in ids {
            let was_touched = match Self::key(hub, &id) {
                Ok(key) => {
                    self.ask(key, |reply| Input::SkipGraceful {
                        reason: reason.clone(),
                        reply,
                    })
                    .await?
                }
                Err(_) => false,
            };
            if !was_touched {
                untouched.push(id);
            }
        }
        Ok(untouched)
    }

    /// Rewinds a failed instance (S-9.12, S-9.13).
    pub async fn rewind(&self, hub: HubId, id: &str, reason: Option<String>) -> Result<(), Error> {
        let key = Self::key(hub, id)?;
        let _credit = self.credit_for_new_work().await?;
        self.ask(key, |reply| Input::Rewind { reason, reply }).await
    }

    /// Runs an instance again, under its own id or a new one; answers with the id used (S-9.19, S-9.20).
    pub async fn restart(
        &self,
        hub: HubId,
        id: &str,
        with_new_id: bool,
    ) -> Result<InstanceId, Error> {
        let key = Self::key(hub, id)?;
        if !with_new_id {
            let _credit = self.credit_for_new_work().await?;
            let instance = key.instance.clone();
            self.ask(key, |reply| Input::Restart { reply }).await?;
            return Ok(instance);
        }
        let instance = InstanceId::from_stored(&format!("{:032x}", RandomIds.next()));
        let request = self
            .ask(key, |reply| Input::RestartRequest { instance, reply })
            .await?;
        self.start_instance(hub, request, ReusePolicy::default())
            .await
    }

    /// The history of the current generation, one consistent version (S-3.27). For a worker, what it holds a lease for.
    pub async fn history(
        &self,
        hub: HubId,
        id: &str,
        execution_id: Option<&str>,
        for_worker: bool,
    ) -> Result<HistoryStream, Error> {
        let key = Self::key(hub, id)?;
        let execution_id = execution_id.map(str::to_owned);
        self.ask(key, |reply| Input::History {
            execution_id,
            for_worker,
            reply,
        })
        .await
    }
}

/// Refuses a batch request with too many instance ids (S-14.1).
pub fn check_batch(count: usize) -> Result<(), Error> {
    if count > BATCH_IDS_MAX {
        return Err(Error::invalid(format!(
            "the batch holds {count} instance ids; at most {BATCH_IDS_MAX} are allowed"
        )));
    }
    Ok(())
}
