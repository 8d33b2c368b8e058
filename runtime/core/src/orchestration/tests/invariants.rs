//! What must hold for every instance at all times.

use std::collections::{BTreeMap, BTreeSet};

use super::world::Node;
use crate::entity::EntityEvent;
use crate::history::{EventKind, HistoryEvent, OtherEvent, OtherKind};
use crate::orchestration::{Orchestration, Record, Start, Status};
use crate::wire;

/// Panics naming the instance and the rule if anything is wrong with it.
pub(super) fn check(id: &str, node: &Node) {
    let Some(instance) = &node.instance else {
        return;
    };
    let history: Vec<HistoryEvent> = node
        .chunks
        .iter()
        .flat_map(|c| wire::decode_chunk(c).unwrap())
        .collect();
    shape(id, instance, &history);
    times(id, instance, &history);
    outcomes(id, &history);
    answers(id, &history);
    counts(id, &instance.record, &history);
    status(id, &instance.record);
    restoring_gives_the_live_instance(id, node, instance);
}

/// S-3.12 to S-3.14: what stands where.
fn shape(id: &str, instance: &Orchestration, history: &[HistoryEvent]) {
    let count = |is: fn(&EventKind) -> bool| history.iter().filter(|e| is(&e.kind)).count();
    let started = count(|k| matches!(k, EventKind::ExecutionStarted(_)));
    let completed = count(|k| matches!(k, EventKind::ExecutionCompleted { .. }));
    let is_terminal = instance.record.status.is_terminal();
    assert_eq!(started, usize::from(!history.is_empty()), "'{id}' S-3.14");
    assert_eq!(completed, usize::from(is_terminal), "'{id}' S-3.14");
    if let Some(first) = history.first() {
        assert_eq!(first.kind, EventKind::OrchestratorStarted, "'{id}' S-3.2");
    }
    if let (true, Some(last)) = (is_terminal, history.last()) {
        assert!(
            matches!(&last.kind, EventKind::ExecutionCompleted { status, result, failure }
                if *status == instance.record.status
                && *result == instance.record.output
                && *failure == instance.record.failure),
            "'{id}' S-3.14: {last:?}"
        );
    }
    for event in history {
        match &event.kind {
            EventKind::ExecutionStarted(started) => {
                assert_eq!(event.id, 0, "'{id}' S-3.7");
                assert_eq!(
                    started.execution_id, instance.record.execution_id,
                    "'{id}' S-3.3"
                );
            }
            EventKind::OrchestratorStarted
            | EventKind::EventRaised { .. }
            | EventKind::TaskCompleted { .. }
            | EventKind::TaskFailed { .. }
            | EventKind::TimerFired { .. }
            | EventKind::ChildCompleted { .. }
            | EventKind::ChildFailed { .. }
            | EventKind::ExecutionSuspended { .. }
            | EventKind::ExecutionResumed { .. }
            | EventKind::ExecutionTerminated { .. }
            | EventKind::ExecutionRewound(_) => assert_eq!(event.id, -1, "'{id}' S-3.7: {event:?}"),
            EventKind::ExecutionCompleted { .. }
            | EventKind::TaskScheduled(_)
            | EventKind::ChildCreated(_)
            | EventKind::TimerCreated { .. }
            | EventKind::EventSent { .. }
            | EventKind::Other(_) => {}
        }
    }
}

/// S-3.6, S-3.11: the clock rises strictly, raised events have times of their own, and a timer is older than its episode's clock.
fn times(id: &str, instance: &Orchestration, history: &[HistoryEvent]) {
    let mut clock = None;
    let mut raised = BTreeSet::new();
    for event in history {
        match &event.kind {
            EventKind::OrchestratorStarted => {
                assert!(clock < Some(event.at), "'{id}' S-3.6: {history:?}");
                clock = Some(event.at);
            }
            EventKind::TimerFired { fire_at, .. } => {
                assert!(Some(*fire_at) < clock, "'{id}' S-3.6: {history:?}")
            }
            EventKind::EventRaised { .. } => {
                assert!(raised.insert(event.at), "'{id}' S-3.11: {history:?}")
            }
            _ => {}
        }
    }
    assert!(clock <= instance.record.clock, "'{id}' S-3.6");
    assert!(
        raised.last().copied() <= instance.record.raised_at,
        "'{id}' S-3.11"
    );
}

/// S-4.13, S-5.5: no more outcomes of a task id than schedulings before them.
fn outcomes(id: &str, history: &[HistoryEvent]) {
    let mut open: BTreeMap<(&str, i32), i32> = BTreeMap::new();
    for event in history {
        let (key, change) =
            match &event.kind {
                EventKind::TaskScheduled(_) => (("activity", event.id), 1),
                EventKind::TimerCreated { .. } => (("timer", event.id), 1),
                EventKind::ChildCreated(_) => (("child", event.id), 1),
                EventKind::TaskCompleted { task_id, .. }
                | EventKind::TaskFailed { task_id, .. } => (("activity", *task_id), -1),
                EventKind::TimerFired { timer_id, .. } => (("timer", *timer_id), -1),
                EventKind::ChildCompleted { task_id, .. }
                | EventKind::ChildFailed { task_id, .. } => (("child", *task_id), -1),
                _ => continue,
            };
        let left = open.entry(key).or_default();
        *left += change;
        assert!(*left >= 0, "'{id}' S-4.13: {key:?} in {history:?}");
    }
}

/// S-12.15, S-12.27: no more answers of a request, and grants of a section, than it was asked for before them.
fn answers(id: &str, history: &[HistoryEvent]) {
    let mut open: BTreeMap<(bool, String), i32> = BTreeMap::new();
    for event in history {
        let EventKind::Other(other) = &event.kind else {
            continue;
        };
        let (is_call, name, change) = match wire::entity_event(other) {
            Some(EntityEvent::Called(asked)) => (true, asked.request_id, 1),
            Some(EntityEvent::Completed { request_id } | EntityEvent::Failed { request_id }) => {
                (true, request_id, -1)
            }
            Some(EntityEvent::LockRequested {
                critical_section, ..
            }) => (false, critical_section, 1),
            Some(EntityEvent::LockGranted { critical_section }) => (false, critical_section, -1),
            _ => continue,
        };
        assert!(change > 0 || event.id == -1, "'{id}' S-3.7: {event:?}");
        match open.get_mut(&(is_call, name.clone())) {
            Some(left) => {
                *left += change;
                assert!(*left >= 0, "'{id}' S-12.15: '{name}' in {history:?}");
            }
            // Histories that workers rewrite may begin in the middle.
            None if change < 0 => {}
            None => drop(open.insert((is_call, name), change)),
        }
    }
}

fn counts(id: &str, record: &Record, history: &[HistoryEvent]) {
    let schedulings = history.iter().filter(|e| {
        matches!(
            e.kind,
            EventKind::TaskScheduled(_)
                | EventKind::TimerCreated { .. }
                | EventKind::ChildCreated(_)
                | EventKind::Other(OtherEvent {
                    kind: OtherKind::EntityOperationCalled | OtherKind::EntityLockRequested,
                    ..
                })
        )
    });
    assert_eq!(record.history_events as usize, history.len(), "'{id}'");
    assert_eq!(record.schedulings as usize, schedulings.count(), "'{id}'");
    let highest = history.iter().map(|e| e.id).max().unwrap_or(-1);
    assert_eq!(record.event_id_max, highest, "'{id}'");
    assert_eq!(record.is_started, !history.is_empty(), "'{id}'");
}

/// S-2.7 and what goes with each status.
fn status(id: &str, record: &Record) {
    let status = record.status;
    assert_eq!(
        record.completed_at.is_some(),
        status.is_terminal(),
        "'{id}' S-2.7"
    );
    assert_eq!(
        record.suspension.is_some(),
        status == Status::Suspended,
        "'{id}'"
    );
    assert!(
        record.failure.is_none() || status == Status::Failed,
        "'{id}' S-11.4"
    );
    assert!(record.output.is_none() || status.is_terminal(), "'{id}'");
    assert!(record.has_run || status != Status::Running, "'{id}' S-2.4");
    assert!(record.created_at <= record.updated_at, "'{id}' S-2.7");
}

/// What is stored, read back, with the mailbox noted again, is the instance in memory.
fn restoring_gives_the_live_instance(id: &str, node: &Node, live: &Orchestration) {
    let record = rmp_serde::to_vec(&live.record).unwrap();
    let start = rmp_serde::to_vec(&*live.start).unwrap();
    let record: Record = rmp_serde::from_slice(&record).unwrap();
    let start: Start = rmp_serde::from_slice(&start).unwrap();
    let mut restored =
        Orchestration::restore(live.id.clone(), record, start, &node.chunks).unwrap();
    for message in &node.mailbox {
        assert!(restored.arrive(message), "'{id}' drops {message:?}");
    }
    assert_eq!(&restored, live, "'{id}' restored is not the live one");
}
