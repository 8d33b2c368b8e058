//! Checks one generation's history against the rules that every history follows.
//!
//! Verified: it begins and ends as it must; the orchestrator's clock rises and lies behind every timer that it has seen
//! fire; ids of actions rise; everything that came back answers something that was scheduled before, and only once.
//! Not verified: that the events are those the orchestrator asked for, which is for the test to say.
//! The ids of a worker's actions have to be unique in a generation, as those of [`replay`](crate::replay) are.

use std::collections::BTreeMap;

use mainspring_proto::HistoryEvent;
use mainspring_proto::history_event::EventType;
use prost_types::Timestamp;

/// What was scheduled and has not come back yet: its kind and its id.
type Open = BTreeMap<(&'static str, i32), Option<Timestamp>>;

/// Panics with the rule that `events` break, if they break one. `is_ended`: the instance is terminal.
pub fn check_history(id: &str, events: &[HistoryEvent], is_ended: bool) {
    if let Err(broken) = check(events, is_ended) {
        panic!("{id}: {broken}\n{events:#?}");
    }
}

fn check(events: &[HistoryEvent], is_ended: bool) -> Result<(), String> {
    let count = |wanted: fn(&EventType) -> bool| {
        events
            .iter()
            .filter(|event| event.event_type.as_ref().is_some_and(wanted))
            .count()
    };
    let started = count(|kind| matches!(kind, EventType::ExecutionStarted(_)));
    let completed = count(|kind| matches!(kind, EventType::ExecutionCompleted(_)));
    rule("S-3.14, one ExecutionStarted", started == 1)?;
    rule(
        "S-3.14, one ExecutionCompleted if it has ended",
        completed == usize::from(is_ended),
    )?;
    if is_ended {
        let last = events.last().and_then(|event| event.event_type.as_ref());
        rule(
            "S-3.14, ExecutionCompleted last",
            matches!(last, Some(EventType::ExecutionCompleted(_))),
        )?;
    }

    let mut clock: Option<(i64, i32)> = None;
    let mut action_id = 0;
    let mut open = Open::new();
    for event in events {
        let kind = event.event_type.as_ref().ok_or("an event of no kind")?;
        let time = event.timestamp.ok_or("S-3.10, a time on each event")?;
        if matches!(kind, EventType::OrchestratorStarted(_)) {
            let now = (time.seconds, time.nanos);
            rule(
                "S-3.6, a rising clock",
                clock.is_none_or(|before| before < now),
            )?;
            clock = Some(now);
        } else if event.event_id >= 0 && !matches!(kind, EventType::ExecutionStarted(_)) {
            rule(
                "S-3.7, rising ids of actions",
                event.event_id > action_id || action_id == 0,
            )?;
            action_id = event.event_id;
        }
        match kind {
            EventType::OrchestratorCompleted(_) => {
                return Err("S-3.13, no OrchestratorCompleted".to_owned());
            }
            EventType::ExecutionStarted(_) => {
                rule("S-3.7, ExecutionStarted is 0", event.event_id == 0)?
            }
            EventType::TaskScheduled(_) => scheduled(&mut open, "task", event.event_id, None)?,
            EventType::TimerCreated(timer) => {
                scheduled(&mut open, "timer", event.event_id, timer.fire_at)?
            }
            EventType::SubOrchestrationInstanceCreated(_) => {
                scheduled(&mut open, "child", event.event_id, None)?
            }
            EventType::TaskCompleted(task) => {
                returned(&mut open, "task", task.task_scheduled_id)?;
            }
            EventType::TaskFailed(task) => {
                returned(&mut open, "task", task.task_scheduled_id)?;
            }
            EventType::SubOrchestrationInstanceCompleted(child) => {
                returned(&mut open, "child", child.task_scheduled_id)?;
            }
            EventType::SubOrchestrationInstanceFailed(child) => {
                returned(&mut open, "child", child.task_scheduled_id)?;
            }
            EventType::TimerFired(timer) => {
                let asked = returned(&mut open, "timer", timer.timer_id)?;
                rule("S-6.1, fired as it was asked for", asked == timer.fire_at)?;
                let fire_at = timer.fire_at.map(|time| (time.seconds, time.nanos));
                rule("S-3.6, a clock behind the timer", fire_at < clock)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn scheduled(
    open: &mut Open,
    kind: &'static str,
    id: i32,
    time: Option<Timestamp>,
) -> Result<(), String> {
    rule(
        "unique ids of actions",
        open.insert((kind, id), time).is_none(),
    )
}

/// Takes note of an outcome: S-5.5, one for each scheduling, and never before it.
fn returned(open: &mut Open, kind: &'static str, id: i32) -> Result<Option<Timestamp>, String> {
    open.remove(&(kind, id))
        .ok_or_else(|| format!("S-5.5, {kind} {id} came back without being open"))
}

fn rule(name: &str, holds: bool) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("broken: {name}"))
    }
}
