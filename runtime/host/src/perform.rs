//! Carries out what a commit allows, in the order of commits over all partitions.
//!
//! One actor for all of them: messages reach every mailbox in the order of their positions, which is what lets an instance remember a single
//! head (S-8.2), and the effects of one commit keep their order across partitions, too (S-13.27).

use std::rc::Rc;

use actix::{Actor, Context, Handler, Message as ActorMessage};
use mainspring_core::id::{PartitionId, Position};

use crate::activation::Input;
use crate::partition::{Arm, Shared};
use crate::turns::{After, Submitted};

/// The actor that performs.
pub(crate) struct Performer {
    partitions: Vec<Rc<Shared>>,
}

impl Performer {
    pub(crate) fn new(partitions: Vec<Rc<Shared>>) -> Self {
        Self { partitions }
    }
}

impl Actor for Performer {
    type Context = Context<Self>;
}

impl Drop for Performer {
    /// Without it nobody is answered any more; it ends before its time only by a panic.
    fn drop(&mut self) {
        if let Some(services) = self.partitions.first().map(|shared| &shared.services)
            && !services.is_stopping()
        {
            services.fail("the performer ended".to_owned());
        }
    }
}

/// The oldest batch in flight of a partition is durable, or refused.
pub(crate) struct Committed {
    pub(crate) partition: PartitionId,
    pub(crate) commit: Result<u64, mainspring_store::Error>,
}

impl ActorMessage for Committed {
    type Result = ();
}

impl Handler<Committed> for Performer {
    type Result = ();

    fn handle(&mut self, Committed { partition, commit }: Committed, _: &mut Self::Context) {
        let shared = &self.partitions[usize::from(partition.0)];
        let Submitted { after, opened_at } = shared.turns.borrow_mut().committed();
        match commit {
            Ok(commit) => {
                for after in after {
                    perform(shared, after, commit);
                }
                let turns = &shared.services.metrics.turns;
                turns.note_time(opened_at.elapsed());
            }
            // Another owner has taken over: nothing of this is performed, and callers see their answers dropped as unavailable.
            Err(error) => tracing::error!(%error, partition = partition.0, "a commit was refused"),
        }
        shared.services.config.clock.stir();
    }
}

/// Repeating any of this after a crash does no harm. Inputs go through their partition's mailbox, never past it.
fn perform(shared: &Shared, after: After, commit: u64) {
    let placement = shared.services.placement();
    match after {
        After::Arm { key, due, what } => shared.address().do_send(Arm { key, due, what }),
        After::Deliver {
            target,
            index,
            message,
        } => {
            placement.send(
                target,
                Input::Delivered {
                    position: Position { commit, index },
                    message,
                },
            );
        }
        After::Schedule { key, task } => shared.services.dispatch.schedule(key, task, false),
        After::DropActivities { key, execution_id } => shared
            .services
            .dispatch
            .drop_activities(&key, &execution_id),
        After::Arrive {
            key,
            index,
            message,
        } => placement.send(
            key,
            Input::Arrived {
                position: Position { commit, index },
                message,
            },
        ),
        After::Pinned { key, batch } => placement.send(key, Input::Pinned { batch }),
        After::Answer(answer) => answer(),
    }
}
