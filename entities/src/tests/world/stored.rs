//! What is stored of an entity: begun with its first message, and all there is to know of it after a restart.

use mainspring_core::id::{InstanceId, Position, execution_id};

use super::{Node, World};
use crate::queue::Entry;
use crate::tests::script::entity;
use crate::{Entity, Lock, Record, Transition};

impl World {
    pub(super) fn require(&mut self, id: &InstanceId) -> &mut Entity {
        let node = self.nodes.entry(id.clone()).or_default();
        node.live.get_or_insert_with(|| {
            let live = Entity::new(id.clone(), execution_id(&mut self.ids), self.now);
            node.record = Some(rmp_serde::to_vec(&live.record).unwrap());
            live
        })
    }

    /// The entity's process is gone, and starts again from what is stored.
    pub(in crate::tests) fn crash(&mut self, id: &str) {
        let id = entity(id);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.lease = None;
        node.coming.clear();
        node.live = node.restored(&id);
        let head = node.live.as_ref().map(|e| e.record.mailbox_head);
        let mut transition = Transition::default();
        let positions: Vec<Position> = node.mailbox.keys().copied().collect();
        for position in positions {
            assert!(head.is_none_or(|head| position > head), "'{id}' skips it");
            self.arrive(&id, position, &mut transition);
        }
        self.turn(&id, transition);
    }

    /// What is stored, read back and brought all messages, is the entity in memory once it has been brought those on their way.
    pub(in crate::tests) fn check(&self, id: &InstanceId) {
        let node = &self.nodes[id];
        let Some(mut live) = node.live.clone() else {
            assert_eq!((&node.record, &node.state), (&None, &None), "'{id}'");
            return;
        };
        let mut restored = node.restored(id).unwrap();
        assert_eq!(restored.record.has_state, node.state.is_some(), "'{id}'");
        let mut ignored = Transition::default();
        for (position, message) in &node.mailbox {
            assert!(*position > live.record.mailbox_head, "'{id}' skips it");
            restored.arrive(*position, message.clone(), self.now, &mut ignored);
        }
        for (position, _) in &node.coming {
            let message = node.mailbox[position].clone();
            live.arrive(*position, message, self.now, &mut ignored);
        }
        for entity in [&mut live, &mut restored] {
            entity.record.mailbox_head = Position::default();
            // Tried anew after a restart.
            entity.single = 0;
            // What is given back already is not taken in again.
            let lock = entity.record.lock.clone();
            entity
                .queue
                .take_out(|entry| is_stale(entry, lock.as_ref()));
        }
        assert_eq!(live, restored, "'{id}' restored is not the live one");
    }
}

impl Node {
    fn restored(&self, id: &InstanceId) -> Option<Entity> {
        let record: Record = rmp_serde::from_slice(self.record.as_ref()?).unwrap();
        Some(Entity::restore(id.clone(), record, self.state.clone()))
    }
}

fn is_stale(entry: &Entry, lock: Option<&Lock>) -> bool {
    matches!(entry, Entry::Unlock { critical_section, .. }
        if lock.is_none_or(|l| l.critical_section != *critical_section))
}
