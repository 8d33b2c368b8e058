//! Critical sections: several entities held together by one orchestration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{EntityLockRequestedEvent, EntityUnlockSentEvent, SendEntityMessageAction};

use super::state::{Key, Shared};
use super::task::failed;
use crate::entity::EntityId;
use crate::error::TaskError;

/// What the code holds, and which of it answers a call just now.
#[derive(Debug)]
pub(crate) struct Section {
    id: String,
    /// `false`: granted and idle; `true`: a call is on its way.
    entities: BTreeMap<EntityId, bool>,
    is_granted: bool,
}

/// Entities that are locked until this is dropped, or until the orchestration ends.
///
/// ```
/// # use mainspring_sdk::{ActivityContext, Entity, EntityContext, Operation, Operations, OrchestrationContext, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Account(i64);
/// # impl Entity for Account { fn operations(operations: &mut Operations<Self>) { operations.add::<Change>(); } }
/// # #[derive(Serialize, Deserialize)] struct Change(i64);
/// # impl Operation<Account> for Change {
/// #     type Output = i64;
/// #     async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<i64> { account.0 += self.0; Ok(account.0) }
/// # }
/// # async fn ship(_: ActivityContext, _: ()) -> Result<()> { Ok(()) }
/// async fn buy(ctx: OrchestrationContext, cents: i64) -> Result<()> {
///     let account = ctx.entity::<Account>("ada");
///     let lock = ctx.lock([account.id()]).await?;
///     if account.call(Change(0)).await? < cents {
///         return Ok(());
///     }
///     account.call(Change(-cents)).await?;
///     // Others have the account again while this is shipped.
///     lock.release();
///     Ok(ctx.call(ship, ()).await?)
/// }
/// ```
#[must_use = "the entities are unlocked when this is dropped"]
pub struct Lock {
    shared: Arc<Shared>,
}

impl Lock {
    /// Unlocks; the same as dropping it.
    pub fn release(self) {}

    /// Leaves them locked until the orchestration ends, which is no critical section to the code any more: an orchestrator that fails and may be
    /// rewound does nothing after its failure, not even unlock.
    pub fn until_the_end(self) {
        drop(self.shared.state().section.take());
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lock")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.is_torn_down {
            return;
        }
        let Some(section) = state.section.take() else {
            return;
        };
        for entity in section.entities.keys() {
            let unlock = EntityUnlockSentEvent {
                critical_section_id: section.id.clone(),
                parent_instance_id: Some(self.shared.origin.instance.clone()),
                target_instance_id: Some(entity.to_string()),
            };
            state.act(message(EntityMessageType::EntityUnlockSent(unlock)));
        }
    }
}

pub(crate) fn message(kind: EntityMessageType) -> ActionType {
    ActionType::SendEntityMessage(SendEntityMessageAction {
        entity_message_type: Some(kind),
    })
}

/// Asks for all of them and waits until they are held.
pub(super) async fn lock(
    shared: Arc<Shared>,
    entities: BTreeSet<EntityId>,
) -> Result<Lock, TaskError> {
    if entities.is_empty() {
        return Err(TaskError::Misuse(
            "a critical section needs at least one entity".to_owned(),
        ));
    }
    let pending = {
        let id = shared.guid();
        let mut state = shared.state();
        if state.section.is_some() {
            return Err(TaskError::Misuse(
                "this orchestration holds locks already: name all entities in one lock".to_owned(),
            ));
        }
        let request = EntityLockRequestedEvent {
            critical_section_id: id.clone(),
            lock_set: entities.iter().map(ToString::to_string).collect(),
            position: 0,
            parent_instance_id: Some(shared.origin.instance.clone()),
        };
        state.act(message(EntityMessageType::EntityLockRequested(request)));
        state.section = Some(Section {
            id: id.clone(),
            entities: entities.into_iter().map(|entity| (entity, false)).collect(),
            is_granted: false,
        });
        drop(state);
        shared.wait(Key::Section(id))
    };
    // Given up while it waits, the request stays with the scheduler; so the section is left like one that was granted.
    let held = Lock {
        shared: Arc::clone(&shared),
    };
    match pending.await {
        Ok(_) => {
            if let Some(section) = &mut shared.state().section {
                section.is_granted = true;
            }
            Ok(held)
        }
        Err(failure) => Err(failed("the critical section".to_owned(), failure)),
    }
}

impl Section {
    /// Whether a call to this entity may be made now. Notes that it is on its way.
    pub(super) fn begin_call(&mut self, entity: &EntityId) -> Result<(), TaskError> {
        if !self.is_granted {
            return Ok(());
        }
        match self.entities.get_mut(entity) {
            None => Err(TaskError::Misuse(format!(
                "entity '{entity}' is not locked by this critical section, so it cannot be called within it"
            ))),
            Some(true) => Err(TaskError::Misuse(format!(
                "entity '{entity}' is answering a call of this critical section; wait for it before the next"
            ))),
            Some(is_busy) => {
                *is_busy = true;
                Ok(())
            }
        }
    }

    pub(super) fn end_call(&mut self, entity: &EntityId) {
        if let Some(is_busy) = self.entities.get_mut(entity) {
            *is_busy = false;
        }
    }

    /// Whether a signal to this entity may be sent now.
    pub(super) fn allows_signal(&self, entity: &EntityId) -> Result<(), TaskError> {
        if self.entities.contains_key(entity) {
            return Err(TaskError::Misuse(format!(
                "entity '{entity}' is locked by this critical section: call it instead of signalling it"
            )));
        }
        Ok(())
    }
}
