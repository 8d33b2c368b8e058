//! What clients and workers ask about entities.

use mainspring_core::entity::{Operation, Sender, guid};
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId, entity_name};
use mainspring_core::message::Message;
use mainspring_core::wire;
use mainspring_entities::{Record, View};
use mainspring_proto::EntityBatchResult;
use mainspring_store::Read;
use mainspring_store::query::{self as stored, EntityFilter};

use crate::activation::Input;
use crate::api::{EntityPage, EntityQuery, Peer, Signal};
use crate::clock::RandomIds;
use crate::error::Error;
use crate::host::Host;
use crate::query::{PAGE_BYTES_MAX, page_size};
use crate::worker::is_repeated;

/// Messages of a mailbox that are read at once.
const MAILBOX_PAGE: usize = 1_000;

/// What an entity takes in an answer beside its state, in bytes.
const METADATA_BYTES: usize = 256;

impl Host {
    pub(crate) fn entity_key(hub: HubId, id: &str) -> Result<InstanceKey, Error> {
        let instance =
            InstanceId::parse_entity(id).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(InstanceKey { hub, instance })
    }

    /// Puts an operation into an entity's queue, now or later; the entity need not exist (S-12.37).
    pub async fn signal_entity(&self, hub: HubId, signal: Signal) -> Result<(), Error> {
        let key = Self::entity_key(hub, &signal.entity)?;
        if signal.operation.is_empty() {
            return Err(Error::invalid("the operation's name is empty"));
        }
        let _credit = self.credit_for_new_work().await?;
        let mut ids = RandomIds;
        let request_id = match signal.request_id.is_empty() {
            true => guid(&mut ids),
            false => signal.request_id,
        };
        let now = self.now();
        let (name, input) = (signal.operation, signal.input);
        let operation = Operation::new(request_id, name, input, Sender::Client, now, &mut ids)
            .scheduled(signal.scheduled_at);
        self.ask(key, |reply| Input::Signal {
            operation: Box::new(operation),
            reply,
        })
        .await
    }

    /// What there is to know of an entity; `None`: it has no state (S-12.38). From memory, unless operations that were asked for before wait to be done.
    pub async fn get_entity(
        &self,
        hub: HubId,
        id: &str,
        include_state: bool,
    ) -> Result<Option<View>, Error> {
        let key = Self::entity_key(hub, id)?;
        if self.is_stopping() {
            return Err(Error::stopping());
        }
        self.ask(key, |reply| Input::ViewEntity {
            include_state,
            reply,
        })
        .await
    }

    /// Takes an entity worker's answer; a stale one is answered like success (S-4.4).
    pub async fn complete_entity(
        &self,
        hub: HubId,
        _peer: &Peer,
        result: EntityBatchResult,
    ) -> Result<(), Error> {
        let _credit = self.credit().await?;
        let dispatch = &self.inner.services.dispatch;
        let Some((key, token)) = dispatch.find_batch(hub, &result.completion_token) else {
            return Ok(());
        };
        let result = Box::new(wire::batch_result(result));
        let answer = self
            .ask(key, |reply| Input::BatchDone {
                token,
                result,
                reply,
            })
            .await;
        if let Err(error) = &answer {
            dispatch.refuse(token, is_repeated(error));
        }
        answer
    }

    /// Deletes state and waiting signals of an entity that is neither locked nor at work. False: it was not (S-11.23).
    pub(crate) async fn purge_entity(&self, hub: HubId, id: &str) -> Result<bool, Error> {
        match Self::entity_key(hub, id) {
            Ok(key) => self.ask(key, |reply| Input::PurgeEntity { reply }).await,
            Err(_) => Ok(false),
        }
    }

    /// One page of entities in order of their ids (S-12.39).
    pub async fn query_entities(
        &self,
        hub: HubId,
        query: EntityQuery,
    ) -> Result<EntityPage, Error> {
        let after = match query.token.as_deref().filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => Some(InstanceId::parse_entity(token).map_err(|_| {
                Error::invalid(format!(
                    "continuation token '{token}' is not one of this server's"
                ))
            })?),
        };
        let filter = EntityFilter {
            prefix: prefix(query.prefix.as_deref().unwrap_or_default()),
            modified_from: query.modified_from,
            modified_to: query.modified_to,
            include_transient: query.include_transient,
        };
        self.settle().await;
        let limit = page_size(query.page_size);
        let host = self.clone();
        let page = tokio::task::spawn_blocking(move || {
            host.read_entities(hub, &filter, after, limit, query.include_state)
        })
        .await
        .map_err(|_| Error::stopping())??;
        self.made_durable().await?;
        Ok(page)
    }

    fn read_entities(
        &self,
        hub: HubId,
        filter: &EntityFilter,
        mut after: Option<InstanceId>,
        limit: usize,
        include_state: bool,
    ) -> Result<EntityPage, Error> {
        let store = &self.inner.services.store;
        let read = store.read();
        let partitions = store.partitions();
        let mut page = EntityPage::default();
        let mut bytes = 0;
        loop {
            let wanted = limit - page.views.len();
            let found =
                stored::query_entities(&*read, hub, partitions, filter, after.as_ref(), wanted)?;
            for (instance, partition, record) in found.entities {
                let key = InstanceKey { hub, instance };
                let has_state = record.has_state;
                let view = stored_view(&*read, partition, &key, record, include_state)?;
                // Nothing of it is left but the memory of requests that were done.
                let is_over = !has_state && view.backlog == 0 && view.locked_by.is_none();
                if is_over {
                    after = Some(key.instance);
                    continue;
                }
                let size = METADATA_BYTES + view.state.as_ref().map_or(0, String::len);
                if bytes + size > PAGE_BYTES_MAX && !page.views.is_empty() {
                    page.token = after.map(|id| id.as_str().to_owned());
                    return Ok(page);
                }
                bytes += size;
                after = Some(key.instance);
                page.views.push(view);
            }
            match found.next {
                None => return Ok(page),
                Some(next) if page.views.len() == limit => {
                    page.token = Some(next.as_str().to_owned());
                    return Ok(page);
                }
                next => after = next,
            }
        }
    }
}

fn stored_view(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
    record: Record,
    include_state: bool,
) -> Result<View, Error> {
    let state = match include_state && record.has_state {
        true => stored::entity_state(read, partition, key)?,
        false => None,
    };
    // A client's operation is done only when nothing stands before it.
    let head = record.mailbox_head.max(record.done);
    let mut backlog = 0;
    let mut after = head;
    loop {
        let page = stored::mailbox(read, partition, key, after, MAILBOX_PAGE)?;
        backlog += page
            .iter()
            .filter(|(_, m)| matches!(m, Message::Operation(_)))
            .count();
        match page.last() {
            Some((last, _)) if page.len() == MAILBOX_PAGE => after = *last,
            _ => break,
        }
    }
    Ok(View {
        id: key.instance.clone(),
        last_modified: record.last_modified,
        backlog,
        locked_by: record.lock.map(|lock| lock.holder.instance),
        state,
    })
}

/// A prefix of ids, with the name in the form in which it is stored (S-12.2, S-12.39).
fn prefix(stated: &str) -> String {
    let rest = stated.strip_prefix('@').unwrap_or(stated);
    match rest.split_once('@') {
        Some((name, key)) => format!("@{}@{key}", entity_name(name)),
        None => format!("@{}", entity_name(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_the_form_of_stored_ids() {
        // S-12.39
        for (stated, read) in [
            ("", "@"),
            ("@", "@"),
            ("Counter", "@counter"),
            ("@Coun", "@coun"),
            ("Counter@Key", "@counter@Key"),
            ("@Schedule@", "@schedule@"),
        ] {
            assert_eq!(prefix(stated), read);
        }
    }
}
