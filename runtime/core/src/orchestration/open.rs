//! What a generation's history says is still open: activities, timers, children, calls of entities, locks. Never stored; folded
//! from history.

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::Timer;
use crate::entity::{EntityEvent, lock_set};
use crate::history::{EventKind, HistoryEvent, OtherEvent, OtherKind};
use crate::id::{ExecutionId, InstanceId};
use crate::message::Fence;
use crate::time::Timestamp;
use crate::wire;

/// What was scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Activity,
    Timer {
        fire_at: Timestamp,
    },
    Child,
    /// A call of an entity.
    Call,
    /// A request for the locks of a critical section.
    Lock,
}

/// Kinds of tasks: their ids are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TaskKind {
    Activity,
    Timer,
    Child,
    Call,
    Lock,
}

/// What an outcome in history names its task by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// An action's id.
    Id(i32),
    /// A call's request id, or a critical section's.
    Text(String),
}

impl Task {
    fn kind(&self) -> TaskKind {
        match self {
            Self::Activity => TaskKind::Activity,
            Self::Timer { .. } => TaskKind::Timer,
            Self::Child => TaskKind::Child,
            Self::Call => TaskKind::Call,
            Self::Lock => TaskKind::Lock,
        }
    }
}

/// One scheduling without its outcome in history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    /// Id of the action.
    task_id: i32,
    name: Name,
    task: Task,
    /// Its outcome is in the mailbox.
    has_arrived: bool,
}

/// Open schedulings by number, and all children of the generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenWork {
    next: u32,
    open: BTreeMap<u32, Open>,
    /// The same by what outcomes in history name them by; ids may repeat (S-4.13).
    by_task: BTreeSet<(TaskKind, Name, u32)>,
    /// Finished ones too: a recursive termination passes through them (S-9.8).
    children: BTreeMap<u32, InstanceId>,
    /// Critical sections asked for, each with the entities whose locks were not given back yet.
    sections: BTreeMap<String, BTreeSet<InstanceId>>,
}

impl OpenWork {
    /// Whether the event takes a scheduling number.
    pub(super) fn is_scheduling(event: &HistoryEvent) -> bool {
        matches!(
            event.kind,
            EventKind::TaskScheduled(_)
                | EventKind::TimerCreated { .. }
                | EventKind::ChildCreated(_)
                | EventKind::Other(OtherEvent {
                    kind: OtherKind::EntityOperationCalled | OtherKind::EntityLockRequested,
                    ..
                })
        )
    }

    /// Takes the next event of the history into account. `overtaken`: what an outcome in history is not about
    /// ([`Record::overtaken`](super::Record::overtaken)).
    pub(super) fn fold(&mut self, event: &HistoryEvent, overtaken: &BTreeSet<u32>) {
        match &event.kind {
            EventKind::TaskScheduled(_) => self.schedule(event.id, None, Task::Activity),
            EventKind::TimerCreated { fire_at } => {
                self.schedule(event.id, None, Task::Timer { fire_at: *fire_at });
            }
            EventKind::ChildCreated(child) => {
                self.children
                    .insert(self.next, InstanceId::from_stored(&child.instance));
                self.schedule(event.id, None, Task::Child);
            }
            EventKind::TaskCompleted { task_id, .. } | EventKind::TaskFailed { task_id, .. } => {
                self.answer(TaskKind::Activity, Name::Id(*task_id), overtaken);
            }
            EventKind::TimerFired { timer_id, .. } => {
                self.answer(TaskKind::Timer, Name::Id(*timer_id), overtaken);
            }
            EventKind::ChildCompleted { task_id, .. } | EventKind::ChildFailed { task_id, .. } => {
                self.answer(TaskKind::Child, Name::Id(*task_id), overtaken);
            }
            EventKind::OrchestratorStarted
            | EventKind::ExecutionStarted(_)
            | EventKind::ExecutionCompleted { .. }
            | EventKind::ExecutionTerminated { .. }
            | EventKind::ExecutionSuspended { .. }
            | EventKind::ExecutionResumed { .. }
            | EventKind::ExecutionRewound(_)
            | EventKind::EventSent { .. }
            | EventKind::EventRaised { .. } => {}
            EventKind::Other(other) => self.fold_entity_event(event.id, other, overtaken),
        }
    }

    fn fold_entity_event(&mut self, id: i32, event: &OtherEvent, overtaken: &BTreeSet<u32>) {
        match wire::entity_event(event) {
            Some(EntityEvent::Called(asked)) => {
                self.schedule(id, Some(asked.request_id), Task::Call);
            }
            Some(EntityEvent::LockRequested {
                critical_section,
                lock_set: listed,
            }) => {
                let entities = lock_set(&listed).unwrap_or_default();
                self.sections
                    .entry(critical_section.clone())
                    .or_default()
                    .extend(entities);
                self.schedule(id, Some(critical_section), Task::Lock);
            }
            Some(EntityEvent::Completed { request_id } | EntityEvent::Failed { request_id }) => {
                self.answer(TaskKind::Call, Name::Text(request_id), overtaken);
            }
            Some(EntityEvent::LockGranted { critical_section }) => {
                self.answer(TaskKind::Lock, Name::Text(critical_section), overtaken);
            }
            Some(EntityEvent::UnlockSent {
                critical_section,
                target,
            }) => self.unlock(&critical_section, &target),
            Some(EntityEvent::Signaled(_)) | None => {}
        }
    }

    fn unlock(&mut self, critical_section: &str, target: &str) {
        // Given back before it was had: the entity passes over that.
        if self.waits_for_locks(critical_section) {
            return;
        }
        let (Some(held), Ok(target)) = (
            self.sections.get_mut(critical_section),
            InstanceId::parse_entity(target),
        ) else {
            return;
        };
        held.remove(&target);
        if held.is_empty() {
            self.sections.remove(critical_section);
        }
    }

    fn schedule(&mut self, task_id: i32, name: Option<String>, task: Task) {
        let name = name.map_or(Name::Id(task_id), Name::Text);
        self.by_task.insert((task.kind(), name.clone(), self.next));
        self.open.insert(
            self.next,
            Open {
                task_id,
                name,
                task,
                has_arrived: false,
            },
        );
        self.next += 1;
    }

    /// An outcome in history names a task id only: of several open ones with that id it answers the oldest that was not overtaken.
    fn answer(&mut self, kind: TaskKind, name: Name, overtaken: &BTreeSet<u32>) {
        let oldest = self
            .by_task
            .range((kind, name.clone(), 0)..=(kind, name, u32::MAX))
            .map(|(.., scheduling)| *scheduling)
            .find(|scheduling| !overtaken.contains(scheduling));
        if let Some(scheduling) = oldest {
            self.remove(scheduling);
        }
    }

    fn remove(&mut self, scheduling: u32) -> Option<(TaskKind, Name, u32)> {
        let open = self.open.remove(&scheduling)?;
        let task = (open.task.kind(), open.name, scheduling);
        self.by_task.remove(&task);
        Some(task)
    }

    /// Notes that an outcome waits in the mailbox. False: there is nothing open under this number, or it has its outcome.
    pub(super) fn arrive(&mut self, scheduling: u32) -> bool {
        match self.open.get_mut(&scheduling) {
            Some(open) if !open.has_arrived => {
                open.has_arrived = true;
                true
            }
            _ => false,
        }
    }

    /// An outcome has moved from the mailbox into history. Gives those it overtook: older ones with the same task id, still open.
    pub(super) fn take(&mut self, scheduling: u32) -> Vec<u32> {
        let Some((kind, name, _)) = self.remove(scheduling) else {
            return Vec::new();
        };
        self.by_task
            .range((kind, name.clone(), 0)..(kind, name, scheduling))
            .map(|(.., older)| *older)
            .collect()
    }

    /// The generation is over: nothing is open any more.
    pub(super) fn close(&mut self) {
        self.open.clear();
        self.by_task.clear();
        self.sections.clear();
    }

    /// Entities that are locked, or are to be, for this generation.
    pub(super) fn locked(&self) -> BTreeSet<InstanceId> {
        self.sections.values().flatten().cloned().collect()
    }

    /// How many they are, those of two sections twice.
    pub(super) fn locked_len(&self) -> usize {
        self.sections.values().map(BTreeSet::len).sum()
    }

    /// Whether a critical section was entered and not left altogether.
    pub(super) fn is_in_section(&self) -> bool {
        self.sections
            .iter()
            .any(|(name, held)| !held.is_empty() && !self.waits_for_locks(name))
    }

    /// Whether a critical section was asked for and not granted yet.
    fn waits_for_locks(&self, critical_section: &str) -> bool {
        let name = || Name::Text(critical_section.to_owned());
        let asked = (TaskKind::Lock, name(), 0)..=(TaskKind::Lock, name(), u32::MAX);
        self.by_task.range(asked).next().is_some()
    }

    /// Calls and lock requests without an outcome.
    pub(super) fn asked_of_entities(&self) -> Vec<u32> {
        self.unanswered()
            .filter(|(_, o)| matches!(o.task, Task::Call | Task::Lock))
            .map(|(n, _)| n)
            .collect()
    }

    pub(super) fn schedulings(&self) -> u32 {
        self.next
    }

    /// Number of the latest scheduling.
    pub(super) fn latest(&self) -> u32 {
        self.next.saturating_sub(1)
    }

    pub(super) fn activities(&self) -> Vec<u32> {
        self.unanswered()
            .filter(|(_, o)| o.task == Task::Activity)
            .map(|(n, _)| n)
            .collect()
    }

    pub(super) fn timers(&self, generation: u32, execution_id: &ExecutionId) -> Vec<Timer> {
        self.unanswered()
            .filter_map(|(scheduling, open)| match open.task {
                Task::Timer { fire_at } => Some(Timer {
                    generation,
                    fence: Fence {
                        execution_id: execution_id.clone(),
                        scheduling,
                    },
                    timer_id: open.task_id,
                    fire_at,
                }),
                _ => None,
            })
            .collect()
    }

    /// Children without an outcome: scheduling, task id, instance.
    pub(super) fn open_children(&self) -> Vec<(u32, i32, InstanceId)> {
        self.unanswered()
            .filter(|(_, o)| o.task == Task::Child)
            .filter_map(|(n, o)| Some((n, o.task_id, self.children.get(&n)?.clone())))
            .collect()
    }

    /// The children as they were named; ids may be illegal and may repeat.
    pub(super) fn children(&self) -> impl Iterator<Item = &InstanceId> {
        self.children.values()
    }

    fn unanswered(&self) -> impl Iterator<Item = (u32, &Open)> {
        self.open
            .iter()
            .filter(|(_, o)| !o.has_arrived)
            .map(|(n, o)| (*n, o))
    }
}
