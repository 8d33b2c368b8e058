//! What a random history asked for and what it saw, as it happened.
//!
//! Every operation that leaves a trace has a label of its own, `<sender>.<generation>.<number>`, and every entity's state
//! is the list of labels in the order in which their operations were executed. So the final state tells the order of
//! everything, and the journal what that order has to agree with. [`verdict`](crate::verdict) compares them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Entities of a random history.
pub const ENTITIES: [&str; 5] = ["@log@a", "@log@b", "@log@c", "@Log@d", "@log@"];

/// Which of [`ENTITIES`] an entity is, by its number.
pub fn index(entity: &str) -> usize {
    let mut known = ENTITIES.iter();
    let found = known.position(|known| known.to_lowercase() == entity);
    found.unwrap_or_else(|| panic!("S-12.2, a known entity in lower case: {entity}"))
}

/// What an operation does beside leaving its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// It comes later than what its sender sends afterwards.
    Delayed,
    /// It signals an entity, where [`echo`] of its label is left.
    Relay(usize),
    /// It starts an orchestration, [`spawned_id`] of its label, that leaves a label at an entity.
    Spawn(usize),
}

/// Label that a relayed operation leaves.
pub fn echo(label: &str) -> String {
    format!("{label}'")
}

/// Orchestration that a spawning operation starts.
pub fn spawned_id(label: &str) -> String {
    format!("s-{label}")
}

/// Label of the only operation of an orchestration that an entity started.
pub fn spawned_label(label: &str) -> String {
    format!("{}.0.1", spawned_id(label))
}

/// Sender, generation and number of a label.
pub fn parts(label: &str) -> (&str, usize, usize) {
    let mut parts = label.rsplitn(3, '.');
    let mut number = || parts.next().and_then(|part| part.parse().ok());
    let (count, generation) = (number(), number());
    match (parts.next(), generation, count) {
        (Some(sender), Some(generation), Some(count)) => (sender, generation, count),
        _ => panic!("a label that nobody made: {label}"),
    }
}

/// An operation that leaves a label.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which of [`ENTITIES`].
    pub entity: usize,
    /// What it does.
    pub kind: Kind,
    /// The critical section that it belongs to.
    pub section: Option<String>,
    /// Before it was sent.
    pub at: Instant,
    /// When its answer was seen, and its place in the entity's list as the answer told it.
    pub answered: Option<(Instant, usize)>,
}

/// A look at an entity's state that leaves no trace.
#[derive(Debug, Clone)]
pub struct Look {
    /// Which of [`ENTITIES`].
    pub entity: usize,
    /// Before it was sent.
    pub at: Instant,
    /// When its answer was seen, how many labels there were, and the last of them.
    pub answered: Option<(Instant, usize, String)>,
}

/// Everything that was noted.
#[derive(Debug, Default)]
pub struct Notes {
    /// Operations, by label.
    pub asked: HashMap<String, Asked>,
    /// Looks, by their own labels.
    pub looks: HashMap<String, Look>,
    /// Rules that were seen broken on the way.
    pub broken: Vec<String>,
}

/// Notes of everybody who takes part.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Notes>);

impl Journal {
    /// Notes that an operation is about to be sent. A replay, and a repetition after a crash, change nothing.
    pub fn ask(&self, label: &str, entity: usize, kind: Kind, section: Option<&str>) {
        let asked = || Asked {
            entity,
            kind,
            section: section.map(str::to_owned),
            at: Instant::now(),
            answered: None,
        };
        let mut notes = self.notes();
        notes.asked.entry(label.to_owned()).or_insert_with(asked);
    }

    /// Notes the answer to an operation, when it is seen first.
    pub fn answer(&self, label: &str, place: usize) {
        let mut notes = self.notes();
        let Some(asked) = notes.asked.get_mut(label) else {
            return notes.broken.push(format!("{label} was answered unasked"));
        };
        match asked.answered {
            None => asked.answered = Some((Instant::now(), place)),
            Some((_, before)) if before != place => notes.broken.push(format!(
                "{label} was answered with {before} and with {place}"
            )),
            Some(_) => {}
        }
    }

    /// Notes that somebody is about to look.
    pub fn look(&self, label: &str, entity: usize) {
        let look = || Look {
            entity,
            at: Instant::now(),
            answered: None,
        };
        let mut notes = self.notes();
        notes.looks.entry(label.to_owned()).or_insert_with(look);
    }

    /// Notes what was seen, when it is seen first.
    pub fn saw(&self, label: &str, length: usize, last: &str) {
        let mut notes = self.notes();
        if let Some(look) = notes.looks.get_mut(label) {
            look.answered
                .get_or_insert_with(|| (Instant::now(), length, last.to_owned()));
        }
    }

    /// Notes a broken rule.
    pub fn broken(&self, rule: String) {
        self.notes().broken.push(rule);
    }

    /// All notes.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
