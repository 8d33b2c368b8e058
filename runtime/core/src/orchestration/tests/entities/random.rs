//! Random lives of an orchestration that calls and locks entities. The world checks every turn, restoring it included; here is added that
//! calls are answered in the generation that asked, and that no lock outlives its generation.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SEEDS: u64 = 300;
const STEPS: usize = 120;
const ENTITIES: [&str; 4] = ["@e@1", "@e@2", "@f@1", "nobody"];

/// Xorshift: the same numbers from the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn entity(&mut self) -> &'static str {
        ENTITIES[self.below(ENTITIES.len())]
    }
}

/// What entities know of "a": the simplest thing that could be right.
#[derive(Default)]
struct Entities {
    /// Calls to be answered: fence and request id.
    calls: Vec<(Fence, String)>,
    /// Sections to be granted: fence, name, set, generation.
    requests: Vec<(Fence, String, Vec<InstanceId>, Generation)>,
    /// Who holds an entity, by section. Several at once: nobody else is there to wait for.
    held: BTreeMap<(InstanceId, String), Generation>,
    over: BTreeSet<Generation>,
}

impl Entities {
    fn take(&mut self, target: InstanceId, message: Message) {
        match message {
            Message::Operation(operation) => {
                if let Sender::Call { caller, scheduling } = operation.sender {
                    let fence = fence(&caller, scheduling);
                    self.calls.push((fence, operation.request_id));
                }
            }
            Message::Lock(request) => {
                let fence = fence(&request.holder, request.scheduling);
                assert_eq!(request.lock_set[0], target);
                let name = request.critical_section;
                self.requests
                    .push((fence, name, request.lock_set, request.holder));
            }
            Message::Unlock {
                critical_section, ..
            } => {
                self.held.remove(&(target, critical_section));
            }
            Message::ReleaseLocks(over) => {
                self.held
                    .retain(|(id, _), holder| *id != target || *holder != over);
                self.over.insert(over);
            }
            other => panic!("{target} is sent {other:?}"),
        }
    }
}

struct Run {
    dice: Dice,
    world: World,
    entities: Entities,
}

impl Run {
    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for id in 0..self.dice.below(4) as i32 {
            let target = self.dice.entity();
            // Few names, so that many repeat.
            let name = ["x", "y"][self.dice.below(2)];
            let legal = || ENTITIES[..3].iter().copied();
            actions.push(match self.dice.below(9) {
                0..=2 => call(id, target, name),
                3 => signal(id, target, name),
                4 => {
                    let count = self.dice.below(4);
                    let set: Vec<_> = legal().cycle().skip(count).take(count).collect();
                    lock(id, name, &set)
                }
                5 | 6 => unlock(id, name, target),
                7 => task(id, "A"),
                _ if self.dice.below(12) == 0 => lock(id, name, &[target]),
                _ => task(id, "B"),
            });
        }
        match self.dice.below(24) {
            0 => actions.push(complete(50, "out")),
            1 | 2 => actions.push(fail(50, failure("Broken"))),
            3 | 4 => actions.push(renew(50, None)),
            5 => {
                let history = self.world.history("a");
                if !history.is_empty() {
                    return vec![Action::Rewind { id: -1, history }];
                }
            }
            _ => {}
        }
        actions
    }

    fn step(&mut self) {
        match self.dice.below(12) {
            0..=3 => self.episode(),
            4..=6 => self.answer_a_call(),
            7 | 8 => self.grant_a_request(),
            9 => {
                if let Some(queued) = self.world.activities.pop() {
                    let message = Message::ActivityFailed {
                        fence: queued.task.fence,
                        task_id: queued.task.task_id,
                        failure: failure("Broken"),
                        at: self.world.now,
                    };
                    self.world.arrive("a", message);
                }
            }
            10 if self.world.status("a") == Status::Failed => {
                let _ = self.world.rewind("a");
            }
            11 => match self.dice.below(4) {
                0 => drop(self.world.suspend("a")),
                1 if self.dice.below(4) == 0 => drop(self.world.terminate("a", None, false)),
                _ => drop(self.world.resume("a")),
            },
            _ if self.world.status("a").is_terminal() => self.world.restart("a"),
            _ => drop(self.world.raise("a", "go", None)),
        }
        self.world.settle();
        for (target, message) in std::mem::take(&mut self.world.for_entities) {
            self.entities.take(target, message);
        }
    }

    fn episode(&mut self) {
        if self.world.nodes["a"].lease.is_some() || self.world.lease("a").is_none() {
            return;
        }
        let actions = self.actions();
        let result = EpisodeResult {
            actions,
            ..EpisodeResult::default()
        };
        // A history with a lock that is held cannot be taken over (S-9.16).
        if self.world.respond("a", result).is_err() {
            self.world.lose_lease("a");
        }
    }

    fn is_current(&self, fence: &Fence) -> bool {
        let record = &self.world.get("a").record;
        !record.status.is_terminal() && record.execution_id == fence.execution_id
    }

    fn answer_a_call(&mut self) {
        if self.entities.calls.is_empty() {
            return;
        }
        let place = self.dice.below(self.entities.calls.len());
        let (fence, request_id) = self.entities.calls.swap_remove(place);
        let is_current = self.is_current(&fence);
        let is_taken = answer(&mut self.world, fence.clone(), &request_id, "5");
        assert_eq!(is_taken, is_current, "S-12.15: {fence:?}");
        assert!(!answer(&mut self.world, fence, &request_id, "again"));
    }

    fn grant_a_request(&mut self) {
        if self.entities.requests.is_empty() {
            return;
        }
        let place = self.dice.below(self.entities.requests.len());
        let (fence, name, set, holder) = self.entities.requests.swap_remove(place);
        let is_current = self.is_current(&fence);
        if !self.entities.over.contains(&holder) {
            for id in set {
                self.entities
                    .held
                    .insert((id, name.clone()), holder.clone());
            }
        }
        assert_eq!(grant(&mut self.world, fence, &name), is_current, "S-12.27");
    }
}

/// S-12.15, S-12.21, S-12.32, S-9.13.
#[test]
fn calls_are_answered_once_and_no_lock_outlives_its_generation() {
    for seed in 0..SEEDS {
        let mut run = Run {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            world: World::with_a(),
            entities: Entities::default(),
        };
        for _ in 0..STEPS {
            run.step();
            let current = generation(&run.world, "a");
            let is_over = run.world.status("a").is_terminal();
            for (held, holder) in &run.entities.held {
                assert!(
                    *holder == current && !is_over,
                    "S-12.32: {held:?} is held by a former generation, seed {seed}"
                );
            }
        }
    }
}
