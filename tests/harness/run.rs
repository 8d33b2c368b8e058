//! An orchestrator as an author writes it: one function from top to bottom, run again in each episode.
//!
//! Each step asks for something and, if its outcome is not in the history yet, answers `None`, with which the function
//! ends until the next episode. What the history confirms already is not asked for again. Ids of requests and critical
//! sections follow from the generation and the action's id, as those of SDKs do, so that every replay has the same.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::{HistoryEvent, OrchestratorAction, OrchestratorRequest, TaskFailureDetails};
use prost_types::Timestamp;

use crate::action::{call, complete, continue_as_new, lock, signal, timer, unlock};
use crate::entity::guid;

/// How a call ended.
pub type Outcome = Result<String, TaskFailureDetails>;

/// One episode of one generation.
pub struct Run {
    name: String,
    input: String,
    instance_id: String,
    execution_id: String,
    clock: Timestamp,
    confirmed: BTreeSet<i32>,
    outcomes: BTreeMap<String, Outcome>,
    granted: BTreeSet<String>,
    fired: BTreeSet<i32>,
    doubled: Vec<String>,
    actions: Vec<OrchestratorAction>,
    next_id: i32,
}

/// A critical section that was asked for.
#[derive(Debug, Clone)]
pub struct Section {
    /// Names it.
    pub id: String,
}

impl Run {
    /// Takes in what an episode says.
    pub fn new(request: &OrchestratorRequest) -> Self {
        let mut run = Self {
            name: String::new(),
            input: String::new(),
            instance_id: request.instance_id.clone(),
            execution_id: request.execution_id.clone().unwrap_or_default(),
            clock: Timestamp::default(),
            confirmed: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            granted: BTreeSet::new(),
            fired: BTreeSet::new(),
            doubled: Vec::new(),
            actions: Vec::new(),
            next_id: 1,
        };
        for event in request.past_events.iter().chain(&request.new_events) {
            run.take_in(event);
        }
        run
    }

    fn take_in(&mut self, event: &HistoryEvent) {
        let Some(kind) = &event.event_type else {
            return;
        };
        match kind {
            EventType::ExecutionStarted(started) => {
                self.name = started.name.clone();
                self.input = started.input.clone().unwrap_or_default();
                return;
            }
            EventType::OrchestratorStarted(_) => self.clock = event.timestamp.unwrap_or_default(),
            EventType::EntityOperationCompleted(done) => {
                let output = done.output.clone().unwrap_or_default();
                self.note_outcome(&done.request_id, Ok(output));
            }
            EventType::EntityOperationFailed(failed) => {
                let details = failed.failure_details.clone().unwrap_or_default();
                self.note_outcome(&failed.request_id, Err(details));
            }
            EventType::EntityLockGranted(granted) => self.note_grant(&granted.critical_section_id),
            EventType::TimerFired(fired) => drop(self.fired.insert(fired.timer_id)),
            _ => {}
        }
        if event.event_id >= 0 {
            self.confirmed.insert(event.event_id);
        }
    }

    fn note_outcome(&mut self, request_id: &str, outcome: Outcome) {
        let before = self.outcomes.insert(request_id.to_owned(), outcome);
        if before.is_some() {
            self.doubled.push(request_id.to_owned());
        }
    }

    fn note_grant(&mut self, section: &str) {
        if !self.granted.insert(section.to_owned()) {
            self.doubled.push(section.to_owned());
        }
    }

    /// Name of the orchestrator.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its input, empty if it has none.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// The instance.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// Requests and sections that were answered more than once, which none may be (S-12.15).
    pub fn doubled(&self) -> &[String] {
        &self.doubled
    }

    /// Calls an operation and goes on. The outcome comes from [`Run::outcome`].
    pub fn begin_call(&mut self, entity: &str, operation: &str, input: &str) -> String {
        let id = self.take_id();
        let request_id = self.guid(id);
        self.actions
            .push(call(id, &request_id, entity, operation, input));
        request_id
    }

    /// How a call ended, if it has.
    pub fn outcome(&self, request_id: &str) -> Option<Outcome> {
        self.outcomes.get(request_id).cloned()
    }

    /// Calls an operation and waits for its outcome.
    pub fn call(&mut self, entity: &str, operation: &str, input: &str) -> Option<Outcome> {
        let request_id = self.begin_call(entity, operation, input);
        self.outcome(&request_id)
    }

    /// Signals an entity; with a delay, at a time so long after this episode's.
    pub fn signal(&mut self, entity: &str, operation: &str, input: &str, delay: Option<Duration>) {
        let id = self.take_id();
        let request_id = self.guid(id);
        let time = delay.map(|delay| self.after(delay));
        self.actions
            .push(signal(id, &request_id, entity, operation, input, time));
    }

    /// The orchestrator's time so long after this episode's.
    pub fn after(&self, delay: Duration) -> Timestamp {
        let mut time = Timestamp {
            seconds: self.clock.seconds + delay.as_secs() as i64,
            nanos: self.clock.nanos + delay.subsec_nanos() as i32,
        };
        time.normalize();
        time
    }

    /// Asks for the locks of all these entities and waits until it has them.
    pub fn lock(&mut self, set: &[&str]) -> Option<Section> {
        let id = self.take_id();
        let section = Section { id: self.guid(id) };
        self.actions
            .push(lock(id, &self.instance_id, &section.id, set));
        self.granted.contains(&section.id).then_some(section)
    }

    /// Gives back one lock.
    pub fn unlock(&mut self, section: &Section, entity: &str) {
        let id = self.take_id();
        self.actions
            .push(unlock(id, &self.instance_id, &section.id, entity));
    }

    /// Waits for a time so long after this episode's.
    pub fn sleep(&mut self, delay: Duration) -> Option<()> {
        let id = self.take_id();
        let fire_at = self.after(delay);
        self.actions.push(timer(id, fire_at));
        self.fired.contains(&id).then_some(())
    }

    /// Ends the orchestration with a result.
    pub fn complete(&mut self, result: &str) {
        let id = self.take_id();
        self.actions.push(complete(id, result));
    }

    /// Ends this generation and begins another.
    pub fn continue_as_new(&mut self, input: &str) {
        let id = self.take_id();
        self.actions.push(continue_as_new(id, input));
    }

    /// The answer to this episode: what was asked for and is not in the history.
    pub fn into_actions(self) -> Vec<OrchestratorAction> {
        let confirmed = self.confirmed;
        let mut actions = self.actions;
        actions.retain(|action| !confirmed.contains(&action.id));
        actions
    }

    fn take_id(&mut self) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn guid(&self, action_id: i32) -> String {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &self.instance_id, &self.execution_id, action_id).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        guid(half(0) << 64 | half(1))
    }
}
