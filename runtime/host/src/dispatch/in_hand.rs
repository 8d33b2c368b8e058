//! What is not answered yet, counted for whoever watches the scheduler.

use std::time::{Duration, Instant};

use super::activities::Place;
use super::{Dispatch, Held, State};
use crate::api::WorkKind;
use crate::metrics::InHand;

impl Dispatch {
    /// Open streams, and for each kind, by its place, what is in hand.
    pub(crate) fn in_hand(&self) -> (u64, [InHand; WorkKind::ALL.len()]) {
        let state = self.look();
        let now = Instant::now();
        let mut in_hand = [InHand::default(); WorkKind::ALL.len()];
        for stream in state.streams.values() {
            for token in &stream.leases {
                let Some((kind, since)) = lease(&state, token) else {
                    continue;
                };
                let counted = &mut in_hand[kind.place()];
                counted.active += 1;
                counted.active_age = counted.active_age.max(now.duration_since(since));
            }
        }
        let mut add = |kind: WorkKind, count: usize, oldest: Option<Instant>| {
            let counted = &mut in_hand[kind.place()];
            counted.pending += count as u64;
            let age = oldest.map_or(Duration::ZERO, |since| now.duration_since(since));
            counted.pending_age = counted.pending_age.max(age);
        };
        for queues in state.hubs.values() {
            let (episodes, batches) = (&queues.orchestrations, &queues.entities);
            add(WorkKind::Orchestration, episodes.len(), episodes.oldest());
            add(WorkKind::Entity, batches.len(), batches.oldest());
            add(WorkKind::Activity, 0, queues.activities.oldest());
        }
        let out = in_hand[WorkKind::Activity.place()].active;
        // Those that rest or are held back wait as well.
        in_hand[WorkKind::Activity.place()].pending = state.activities.len() as u64 - out;
        let open = state.streams.values().filter(|stream| stream.is_open);
        (open.count() as u64, in_hand)
    }
}

/// What a token stands for, and since when a worker has it.
fn lease(state: &State, token: &super::Token) -> Option<(WorkKind, Instant)> {
    match state.tokens.get(token)? {
        Held::Instance(key) => Some((super::kind_of(key), state.leased.get(key)?.since)),
        Held::Activity(id) => match state.activities.get(id)?.place {
            Place::Out { since, .. } => Some((WorkKind::Activity, since)),
            _ => None,
        },
    }
}
