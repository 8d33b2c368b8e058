//! What the dispatcher has in hand, for those who wait until the scheduler rests.

use std::collections::BTreeSet;

use super::Dispatch;
use super::activities::Place;
use crate::api::WorkKind;
use crate::virtual_time::{Unclaimed, is_hopeless};

/// What is in hand.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// Items that are out, or will go out by themselves.
    pub(crate) is_moving: bool,
    /// Activities that their workers have given back again and again.
    pub(crate) given_back: usize,
    /// What no connected worker takes.
    pub(crate) unclaimed: BTreeSet<Unclaimed>,
}

impl Dispatch {
    /// Takes stock. Items of a worker that has gone count as out until its grace is over, since they come back then.
    pub(crate) fn take_stock(&self) -> Stock {
        let state = self.look();
        let mut stock = Stock {
            is_moving: !state.leased.is_empty()
                || state.fenced.values().any(|fenced| fenced.waiting.is_some()),
            ..Stock::default()
        };
        for activity in state.activities.values() {
            match activity.place {
                Place::Out { .. } => stock.is_moving = true,
                Place::Resting if is_hopeless(activity.attempts) => stock.given_back += 1,
                Place::Resting => stock.is_moving = true,
                // Told by its class, or by the one it is behind.
                Place::Queued | Place::HeldBack => {}
            }
        }
        for (hub, queues) in &state.hubs {
            let waiting = [
                (WorkKind::Orchestration, &queues.orchestrations),
                (WorkKind::Entity, &queues.entities),
            ]
            .into_iter()
            .flat_map(|(kind, queue)| queue.classes().map(move |class| (kind, class)));
            let activities = queues
                .activities
                .classes()
                .map(|class| (WorkKind::Activity, class));
            for (kind, class) in waiting.chain(activities) {
                // One whose worker has gone silent gets nothing.
                let mut takers = Self::takers(&state, *hub, kind, class);
                if takers.any(|stream| !stream.is_silent) {
                    stock.is_moving = true;
                } else {
                    stock.unclaimed.insert(Unclaimed::new(*hub, kind, class));
                }
            }
        }
        stock
    }
}
