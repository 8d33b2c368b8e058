//! Random lives: outcomes, events, timers, control operations and episodes in any order, held against a simple model.
//!
//! The world checks every instance after every turn ([`super::invariants`]): its history, its clock, and that restoring it gives the
//! same instance. Here is added what one turn cannot show: events come once and in order, what is finished stays as it is, and nothing
//! waits for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::invariants;
use super::script::*;
use super::world::*;
use crate::action::{Action, EpisodeResult};
use crate::history::{EventKind, HistoryEvent};
use crate::orchestration::{Origin, Record, ReusePolicy, Status};
use crate::time::Timestamp;

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SEEDS: u64 = 300;
const STEPS: usize = 160;

/// Xorshift: the same numbers from the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn id(&mut self) -> &'static str {
        IDS[self.below(IDS.len())]
    }
}

/// Names the seed if a check fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed is {}", self.0);
        }
    }
}

/// What a client knows of one life of an instance: until it ends or is replaced.
#[derive(Default)]
struct Life {
    /// Names of events whose raising was accepted.
    raised: Vec<String>,
    /// How many of them episodes have shown and committed.
    shown: usize,
}

struct Run {
    dice: Dice,
    world: World,
    lives: BTreeMap<&'static str, Life>,
    /// Events of the episode that is out.
    out: BTreeMap<&'static str, Vec<HistoryEvent>>,
    /// Time of the last committed `OrchestratorStarted`.
    clocks: BTreeMap<&'static str, Timestamp>,
    /// Finished instances, as they ended.
    ended: BTreeMap<&'static str, (Record, Vec<Bytes>)>,
    names: usize,
}

fn client_events(events: &[HistoryEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|e| match &e.kind {
            EventKind::EventRaised { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .filter(|name| name.starts_with("raised"))
        .collect()
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        let mut dice = Dice::new(seed);
        world.limits.batch_events_max = 1 + dice.below(6);
        Self {
            dice,
            world,
            lives: BTreeMap::new(),
            out: BTreeMap::new(),
            clocks: BTreeMap::new(),
            ended: BTreeMap::new(),
            names: 0,
        }
    }

    fn exists(&self, id: &str) -> bool {
        self.world
            .nodes
            .get(id)
            .is_some_and(|n| n.instance.is_some())
    }

    fn step(&mut self) {
        let id = self.dice.id();
        match self.dice.below(24) {
            0..=1 => self.create(id),
            2..=4 => self.raise(id),
            5..=8 => self.lease(id),
            9..=12 => self.respond(id),
            13..=14 => self.finish_an_activity(),
            15..=17 => drop(self.world.deliver()),
            18 => {
                let pause = Duration::from_millis(self.dice.below(3_000) as u64);
                self.world.advance(pause);
            }
            19 => self.lose(id),
            20 | 21 if self.exists(id) => self.control(id),
            22 if self.exists(id) => drop(self.world.rewind(id)),
            23 if self.exists(id) => self.restart_or_purge(id),
            _ => {}
        }
        self.look();
    }

    fn create(&mut self, id: &'static str) {
        let policy = match self.dice.below(3) {
            0 => ReusePolicy {
                is_given: true,
                replaceable: vec![0, 1, 3, 4, 5, 6, 7],
                ..ReusePolicy::default()
            },
            _ => ReusePolicy::default(),
        };
        let mut request = new(id);
        if self.dice.once_in(5) {
            request.scheduled_start_at = Some(self.world.now.plus(Duration::from_secs(2)));
        }
        if let Ok(true) = self.world.create(request, Origin::Client(policy)) {
            self.lives.remove(id);
        }
    }

    fn raise(&mut self, id: &'static str) {
        self.names += 1;
        let name = format!("raised {}", self.names);
        let is_active = self.exists(id) && !self.world.get(id).record.status.is_terminal();
        let is_taken = self.world.raise(id, &name, None);
        assert_eq!(is_taken, is_active, "S-8.4: '{id}'");
        if is_taken {
            self.lives.entry(id).or_default().raised.push(name);
        }
    }

    fn lease(&mut self, id: &'static str) {
        if !self.exists(id) || self.world.nodes[id].lease.is_some() {
            return;
        }
        let Some(events) = self.world.lease(id) else {
            return;
        };
        let record = &self.world.get(id).record;
        assert!(!record.status.is_terminal() && record.status != Status::Suspended);
        assert!(record.terminating.is_none(), "S-9.8");
        if let Some(last) = self.clocks.get(id) {
            assert!(events[0].at >= last.plus(Duration::from_millis(1)), "S-3.6");
        }
        let life = self.lives.entry(id).or_default();
        let shown = client_events(&events);
        let expected = &life.raised[life.shown..][..shown.len()];
        assert_eq!(shown, expected, "S-8.2: '{id}'");
        if self.dice.once_in(8) {
            let node = self.world.nodes.get_mut(id).unwrap();
            let episode = node.lease.clone().unwrap();
            node.instance.as_mut().unwrap().pin(&episode);
        }
        self.out.insert(id, events);
    }

    fn respond(&mut self, id: &'static str) {
        let is_out = self.world.nodes.get(id).is_some_and(|n| n.lease.is_some());
        if !is_out {
            return;
        }
        let events = self.out.remove(id).unwrap();
        let mut result = EpisodeResult {
            actions: self.actions(id),
            ..EpisodeResult::default()
        };
        if self.dice.once_in(5) {
            result.events_processed = Some(self.dice.below(events.len() + 2) as u32);
        }
        if self.dice.once_in(4) {
            result.custom_status = Some(["", "busy"][self.dice.below(2)].into());
        }
        self.commit(id, &events, result);
    }

    fn commit(&mut self, id: &'static str, events: &[HistoryEvent], result: EpisodeResult) {
        let head = 1 + usize::from(kinds(events).get(1) == Some(&"ExecutionStarted"));
        let is_rewind = matches!(result.actions.first(), Some(Action::Rewind { .. }));
        let count = match result.events_processed.filter(|_| !is_rewind) {
            Some(n) => (n as usize).clamp(head, events.len()),
            None => events.len(),
        };
        self.clocks.insert(id, events[0].at);
        self.lives.entry(id).or_default().shown += client_events(&events[..count]).len();
        self.world.respond(id, result).unwrap();
    }

    fn actions(&mut self, id: &str) -> Vec<Action> {
        if self.dice.once_in(40) && !self.world.history(id).is_empty() {
            let history = self.world.history(id);
            return vec![Action::Rewind { id: -1, history }];
        }
        let mut actions = Vec::new();
        for _ in 0..self.dice.below(4) {
            // Few ids, so that many repeat (S-4.13).
            let task_id = self.dice.below(3) as i32;
            let target = self.dice.id();
            self.names += 1;
            actions.push(match self.dice.below(9) {
                0..=2 => task(task_id, "A"),
                3 => timer(task_id, Timestamp::new(9, 0)),
                4 => {
                    let later = Duration::from_millis(self.dice.below(5_000) as u64);
                    timer(task_id, self.world.now.plus(later))
                }
                5 | 6 => child(task_id, target),
                7 => event(task_id, target, &format!("sent {}", self.names)),
                _ => {
                    let recurse = self.dice.once_in(2);
                    match self.dice.below(4) {
                        0 => terminate(task_id, target, recurse),
                        1 => child(task_id, "@no@child"),
                        _ => task(task_id, "B"),
                    }
                }
            });
        }
        let end = self.dice.below(20) as i32;
        match end {
            0..=1 => actions.push(complete(end, "out")),
            2..=4 => actions.push(fail(end, failure("Broken"))),
            5..=7 => {
                let carried = (0..self.dice.below(6))
                    .map(|n| {
                        let at = [None, Some(Timestamp::new(77, 0)), Some(self.world.now)];
                        carry(&format!("carried {n}"), at[self.dice.below(3)])
                    })
                    .collect();
                actions.push(renew_with(end, None, None, carried));
            }
            _ => {}
        }
        actions
    }

    fn finish_an_activity(&mut self) {
        if self.world.activities.is_empty() {
            return;
        }
        let place = self.dice.below(self.world.activities.len());
        // Any of those with this id may be first.
        self.world.activities.swap(0, place);
        let first = self.world.activities[0].clone();
        let (id, task_id) = (first.instance, first.task.task_id);
        if self.dice.once_in(6) {
            // A worker that tells its outcome twice.
            let again = self.world.activities[0].clone();
            self.world.activities.push(again);
        }
        if self.dice.once_in(3) {
            self.world.break_down(&id, task_id);
        } else {
            self.world.succeed(&id, task_id, "x");
        }
    }

    fn lose(&mut self, id: &'static str) {
        let Some(node) = self.world.nodes.get_mut(id) else {
            return;
        };
        let Some(lost) = node.lease.take() else {
            return;
        };
        self.out.remove(id);
        let is_pinned = self.world.get(id).record.pinned.is_some();
        let status = self.world.get(id).record.status;
        if is_pinned && status != Status::Suspended {
            self.lease(id);
            assert_eq!(self.world.nodes[id].lease, Some(lost), "S-4.17: '{id}'");
        }
    }

    fn control(&mut self, id: &'static str) {
        match self.dice.below(5) {
            0 => drop(self.world.suspend(id)),
            1 | 2 => drop(self.world.resume(id)),
            3 => drop(self.world.terminate(id, Some("stop"), true)),
            _ if self.dice.once_in(3) => drop(self.world.terminate(id, None, false)),
            _ => {}
        }
    }

    fn restart_or_purge(&mut self, id: &'static str) {
        let record = &self.world.get(id).record;
        if !record.status.is_terminal() {
            return;
        }
        if self.dice.once_in(2) {
            self.world.restart(id);
        } else if record.terminating.is_none() {
            self.world.purge(id);
            self.clocks.remove(id);
        }
    }

    /// After a step: what is finished has not changed, short of a new generation (S-2.10).
    fn look(&mut self) {
        for id in IDS {
            let Some(instance) = self.world.nodes.get(id).and_then(|n| n.instance.as_ref()) else {
                self.ended.remove(id);
                self.lives.remove(id);
                continue;
            };
            let mut record = instance.record.clone();
            // These belong to others: who waits below, and which generation of the parent asks.
            (record.terminating, record.parent) = (None, None);
            if self.world.nodes[id].lease.is_none() {
                self.out.remove(id);
            }
            if let Some(clock) = record.clock {
                self.clocks.insert(id, clock);
            }
            let chunks = &self.world.nodes[id].chunks;
            match self.ended.get(id) {
                Some((before, history)) if before.execution_id == record.execution_id => {
                    assert_eq!((before, history), (&record, chunks), "S-2.10: '{id}'");
                }
                _ => {
                    self.ended.remove(id);
                }
            }
            if record.status.is_terminal() {
                self.lives.remove(id);
                self.ended.insert(id, (record, chunks.clone()));
            }
        }
    }

    /// Lets everything run out: no orchestrator asks for anything more.
    fn run_out(&mut self) {
        for _ in 0..1_000 {
            let mut is_busy = self.world.deliver();
            if !self.world.activities.is_empty() {
                self.finish_an_activity();
                is_busy = true;
            }
            self.world.advance(Duration::from_secs(6));
            self.look();
            for id in IDS {
                if !self.exists(id) {
                    continue;
                }
                self.world.resume(id);
                self.lease(id);
                if let Some(events) = self.out.remove(id) {
                    self.commit(id, &events, EpisodeResult::default());
                    is_busy = true;
                }
            }
            self.look();
            if !is_busy {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn nothing_waits_for_ever(&self) {
        for id in IDS.into_iter().filter(|id| self.exists(id)) {
            let node = &self.world.nodes[id];
            let instance = self.world.get(id);
            invariants::check(id, node);
            assert_eq!(instance.record.terminating, None, "S-9.8: '{id}'");
            if instance.record.status.is_terminal() {
                continue;
            }
            assert_eq!(instance.record.status, Status::Running, "'{id}'");
            assert!(node.mailbox.is_empty(), "'{id}'");
            assert!(instance.open_activities().is_empty(), "S-9.13: '{id}'");
            assert!(instance.open_timers().is_empty(), "S-9.13: '{id}'");
            if let Some(life) = self.lives.get(id) {
                assert_eq!(life.shown, life.raised.len(), "S-8.2: '{id}'");
            }
            for (scheduling, _, child) in instance.open.open_children() {
                let link = self.world.get(child.as_str()).record.parent.as_ref();
                let fence = link.map(|p| (&p.instance, &p.fence.execution_id, p.fence.scheduling));
                let own = (&instance.id, &instance.record.execution_id, scheduling);
                assert_eq!(fence, Some(own), "S-7.4: '{id}' waits for {child}");
                assert!(!self.world.status(child.as_str()).is_terminal());
            }
        }
    }
}

/// S-0.3, S-2.10, S-3.6, S-3.11 to S-3.14, S-4.13, S-4.17, S-8.2, S-9.8, S-9.13.
#[test]
fn random_lives_keep_the_rules_and_come_to_rest() {
    let mut ends: BTreeMap<Status, usize> = BTreeMap::new();
    for seed in 0..SEEDS {
        let named = Seed(seed);
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            run.step();
        }
        run.run_out();
        run.nothing_waits_for_ever();
        for id in IDS.into_iter().filter(|id| run.exists(id)) {
            *ends.entry(run.world.status(id)).or_default() += 1;
        }
        drop(named);
    }
    // The dice reach what they are to reach.
    for status in [
        Status::Running,
        Status::Completed,
        Status::Failed,
        Status::Terminated,
    ] {
        assert!(ends.get(&status).is_some_and(|n| *n > 10), "{ends:?}");
    }
}
