//! What a generation's history says is still open: activities, timers, children. Never stored; folded from history.

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::Timer;
use crate::history::{EventKind, HistoryEvent};
use crate::id::{ExecutionId, InstanceId};
use crate::message::Fence;
use crate::time::Timestamp;

/// What was scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Activity,
    Timer { fire_at: Timestamp },
    Child,
}

/// Kinds of tasks: their ids are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TaskKind {
    Activity,
    Timer,
    Child,
}

impl Task {
    fn kind(&self) -> TaskKind {
        match self {
            Self::Activity => TaskKind::Activity,
            Self::Timer { .. } => TaskKind::Timer,
            Self::Child => TaskKind::Child,
        }
    }
}

/// One scheduling without its outcome in history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    task_id: i32,
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
    by_task: BTreeSet<(TaskKind, i32, u32)>,
    /// Finished ones too: a recursive termination passes through them (S-9.8).
    children: BTreeMap<u32, InstanceId>,
}

impl OpenWork {
    /// Whether the event takes a scheduling number.
    pub(super) fn is_scheduling(event: &HistoryEvent) -> bool {
        matches!(
            event.kind,
            EventKind::TaskScheduled(_)
                | EventKind::TimerCreated { .. }
                | EventKind::ChildCreated(_)
        )
    }

    /// Takes the next event of the history into account. `overtaken`: what an outcome in history is not about
    /// ([`Record::overtaken`](super::Record::overtaken)).
    pub(super) fn fold(&mut self, event: &HistoryEvent, overtaken: &BTreeSet<u32>) {
        match &event.kind {
            EventKind::TaskScheduled(_) => self.schedule(event.id, Task::Activity),
            EventKind::TimerCreated { fire_at } => {
                self.schedule(event.id, Task::Timer { fire_at: *fire_at })
            }
            EventKind::ChildCreated(child) => {
                self.children
                    .insert(self.next, InstanceId::from_stored(&child.instance));
                self.schedule(event.id, Task::Child);
            }
            EventKind::TaskCompleted { task_id, .. } | EventKind::TaskFailed { task_id, .. } => {
                self.answer(TaskKind::Activity, *task_id, overtaken);
            }
            EventKind::TimerFired { timer_id, .. } => {
                self.answer(TaskKind::Timer, *timer_id, overtaken);
            }
            EventKind::ChildCompleted { task_id, .. } | EventKind::ChildFailed { task_id, .. } => {
                self.answer(TaskKind::Child, *task_id, overtaken);
            }
            EventKind::OrchestratorStarted
            | EventKind::ExecutionStarted(_)
            | EventKind::ExecutionCompleted { .. }
            | EventKind::ExecutionTerminated { .. }
            | EventKind::ExecutionSuspended { .. }
            | EventKind::ExecutionResumed { .. }
            | EventKind::ExecutionRewound(_)
            | EventKind::EventSent { .. }
            | EventKind::EventRaised { .. }
            | EventKind::Other(_) => {}
        }
    }

    fn schedule(&mut self, task_id: i32, task: Task) {
        self.by_task.insert((task.kind(), task_id, self.next));
        self.open.insert(
            self.next,
            Open {
                task_id,
                task,
                has_arrived: false,
            },
        );
        self.next += 1;
    }

    /// An outcome in history names a task id only: of several open ones with that id it answers the oldest that was not overtaken.
    fn answer(&mut self, kind: TaskKind, task_id: i32, overtaken: &BTreeSet<u32>) {
        let oldest = self
            .by_task
            .range((kind, task_id, 0)..=(kind, task_id, u32::MAX))
            .map(|(.., scheduling)| *scheduling)
            .find(|scheduling| !overtaken.contains(scheduling));
        if let Some(scheduling) = oldest {
            self.remove(scheduling);
        }
    }

    fn remove(&mut self, scheduling: u32) -> Option<(TaskKind, i32, u32)> {
        let open = self.open.remove(&scheduling)?;
        let task = (open.task.kind(), open.task_id, scheduling);
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
        let Some((kind, task_id, _)) = self.remove(scheduling) else {
            return Vec::new();
        };
        self.by_task
            .range((kind, task_id, 0)..(kind, task_id, scheduling))
            .map(|(.., older)| *older)
            .collect()
    }

    /// The generation is over: nothing is open any more.
    pub(super) fn close(&mut self) {
        self.open.clear();
        self.by_task.clear();
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
