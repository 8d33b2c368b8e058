//! An episode: what a worker is handed, cut from the mailbox.

use std::time::Duration;

use super::state::outcome_of;
use super::{Orchestration, Pin, Status};
use crate::history::{EncodedEvent, EventKind, HistoryEvent, INBOUND_ID};
use crate::message::Message;
use crate::time::Timestamp;
use crate::wire;

/// Least step of an instance's logical clock, unless told otherwise: JavaScript and Java cut times to milliseconds (S-3.6).
pub(super) const CLOCK_STEP: Duration = Duration::from_millis(1);

/// Least distance between two raised events: what Python and JavaScript can tell apart (S-3.11).
pub(super) const RAISED_STEP: Duration = Duration::from_micros(1);

/// Bytes of a work item that are neither history nor new events.
const HEAD_ROOM: usize = 4 << 10;

/// Bounds on what an instance may hold and a worker is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// UTF-8 bytes of one payload (S-14.2). Default 1 MiB.
    pub payload_bytes_max: usize,
    /// Carried events and messages of one episode (S-3.2). Default 1,000.
    pub batch_events_max: usize,
    /// Encoded bytes of one work item (S-1.11). Default 4,000,000: what gRPC channels receive, with head-room.
    pub work_item_bytes_max: usize,
    /// Events in one generation's history (S-14.5). Default: no limit.
    pub history_events_max: Option<u32>,
    /// Least step of an instance's logical clock from episode to episode (S-3.6). Default 1 ms. Zero under virtual time, where an orchestrator
    /// shall find exactly the time that was set: our own SDK needs no step.
    pub clock_step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1 << 20,
            batch_events_max: 1_000,
            work_item_bytes_max: 4_000_000,
            history_events_max: None,
            clock_step: CLOCK_STEP,
        }
    }
}

/// New events for a worker, in the order of S-3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// Time of its `OrchestratorStarted`.
    pub clock: Timestamp,
    /// Encoded new events.
    pub events: Vec<EncodedEvent>,
    /// It holds `ExecutionStarted`.
    pub begins: bool,
    /// Carried events it holds.
    pub carried: usize,
    /// Messages it holds, from the head of the mailbox.
    pub messages: usize,
    /// For each message the scheduling it answers, if it is an outcome.
    pub(super) answers: Vec<Option<u32>>,
    /// For each message the time its event has in history.
    pub(super) times: Vec<Timestamp>,
}

impl Orchestration {
    /// Cuts the next episode. `None`: nothing to run: suspended, finished, being terminated, not due yet, or nothing new (S-3.5).
    ///
    /// `mailbox`: the waiting messages in order, all of which belong to this generation. The cut ends at the limits; with a pin it is the
    /// pinned one again (S-4.17).
    pub fn next_episode<'a>(
        &self,
        mailbox: impl Iterator<Item = &'a Message>,
        now: Timestamp,
        limits: &Limits,
    ) -> Option<Episode> {
        let record = &self.record;
        let is_held = record.status.is_terminal()
            || record.status == Status::Suspended
            || record.terminating.is_some();
        let is_early =
            !record.is_started && self.start.scheduled_start_at.is_some_and(|at| at > now);
        if is_held || is_early {
            return None;
        }
        let begins = !record.is_started;
        // A rewound instance first replays on its own (S-9.13).
        let is_replay = record.wants_episode && self.carried_left() == 0;
        let mut cut = Cut::new(self, limits);
        if begins {
            cut.push(wire::encode(&self.execution_started()));
        }
        if !is_replay && cut.take_carried(self) {
            cut.take_messages(mailbox);
        }
        if !begins && !is_replay && cut.carried + cut.answers.len() == 0 {
            return None;
        }
        let clock = match &record.pinned {
            Some(pin) => pin.clock,
            None => self.next_clock(now, cut.latest_timer, limits.clock_step),
        };
        let started = HistoryEvent {
            id: INBOUND_ID,
            at: clock,
            kind: EventKind::OrchestratorStarted,
        };
        cut.events.insert(0, wire::encode(&started));
        Some(Episode {
            clock,
            events: cut.events,
            begins,
            carried: cut.carried,
            messages: cut.answers.len(),
            answers: cut.answers,
            times: cut.times,
        })
    }

    /// Carried events that no episode has shown yet.
    pub(super) fn carried_left(&self) -> usize {
        self.start.carried.len() - self.record.carried_taken as usize
    }

    /// Fixes clock and cut of an episode, so that it is handed out identically again.
    pub fn pin(&mut self, episode: &Episode) {
        self.record.pinned = Some(Pin {
            clock: episode.clock,
            carried: episode.carried as u32,
            messages: episode.messages as u32,
            parent_execution_id: self
                .record
                .parent
                .as_ref()
                .map(|p| p.fence.execution_id.clone()),
        });
    }

    /// The next time of the logical clock: it rises by at least `step` over all generations, and above any timer that fires with it.
    pub(super) fn next_clock(
        &self,
        now: Timestamp,
        latest_timer: Option<Timestamp>,
        step: Duration,
    ) -> Timestamp {
        let after_last = self.record.clock.map(|clock| clock.plus(step));
        let after_timer = latest_timer.map(|at| at.plus(step));
        [after_last, after_timer]
            .into_iter()
            .flatten()
            .fold(now, Timestamp::max)
    }
}

/// An episode being cut.
struct Cut<'a> {
    limits: &'a Limits,
    pin: Option<&'a Pin>,
    bytes_left: usize,
    events: Vec<EncodedEvent>,
    carried: usize,
    answers: Vec<Option<u32>>,
    times: Vec<Timestamp>,
    raised_at: Option<Timestamp>,
    latest_timer: Option<Timestamp>,
}

impl<'a> Cut<'a> {
    fn new(instance: &'a Orchestration, limits: &'a Limits) -> Self {
        let history = usize::try_from(instance.record.history_bytes).unwrap_or(usize::MAX);
        let room = limits.work_item_bytes_max.saturating_sub(HEAD_ROOM);
        Self {
            limits,
            pin: instance.record.pinned.as_ref(),
            // A history that fits no work item goes to workers that stream it, and takes no room (S-13.20).
            bytes_left: room.checked_sub(history).unwrap_or(room),
            events: Vec::new(),
            carried: 0,
            answers: Vec::new(),
            times: Vec::new(),
            raised_at: instance.record.raised_at,
            latest_timer: None,
        }
    }

    fn push(&mut self, event: EncodedEvent) {
        self.bytes_left = self.bytes_left.saturating_sub(event.len() + 8);
        self.events.push(event);
    }

    /// Whether one more event fits. The first of a cut always does: it would never become smaller.
    fn has_room(&self, event: &EncodedEvent) -> bool {
        let count = self.carried + self.answers.len();
        count == 0 || (count < self.limits.batch_events_max && event.len() + 8 <= self.bytes_left)
    }

    /// Whether all were taken: the mailbox comes behind them (S-3.18).
    fn take_carried(&mut self, instance: &Orchestration) -> bool {
        let taken = instance.record.carried_taken as usize;
        for event in instance.start.carried.iter().skip(taken) {
            let kind = EventKind::EventRaised {
                name: event.name.clone(),
                input: event.input.clone(),
            };
            let encoded = wire::encode(&HistoryEvent {
                id: INBOUND_ID,
                at: event.at,
                kind,
            });
            let fits = match self.pin {
                Some(pin) => self.carried < pin.carried as usize,
                None => self.has_room(&encoded),
            };
            if !fits {
                return false;
            }
            self.push(encoded);
            self.carried += 1;
        }
        true
    }

    fn take_messages<'m>(&mut self, mailbox: impl Iterator<Item = &'m Message>) {
        for message in mailbox {
            if self
                .pin
                .is_some_and(|pin| self.answers.len() >= pin.messages as usize)
            {
                return;
            }
            let Some((at, kind)) = self.event_of(message) else {
                continue;
            };
            let encoded = wire::encode(&HistoryEvent {
                id: INBOUND_ID,
                at,
                kind,
            });
            if self.pin.is_none() && !self.has_room(&encoded) {
                return;
            }
            match message {
                Message::EventRaised { .. } => self.raised_at = Some(at),
                Message::TimerFired { fire_at, .. } => {
                    self.latest_timer = self.latest_timer.max(Some(*fire_at))
                }
                _ => {}
            }
            self.push(encoded);
            self.answers.push(outcome_of(message).map(|f| f.scheduling));
            self.times.push(at);
        }
    }

    /// The history event that a waiting message becomes (S-3.7, S-5.3, S-6.1, S-7.4).
    fn event_of(&self, message: &Message) -> Option<(Timestamp, EventKind)> {
        Some(match message.clone() {
            Message::EventRaised { name, input, at } => {
                let at = self
                    .raised_at
                    .map_or(at, |last| at.max(last.plus(RAISED_STEP)));
                (at, EventKind::EventRaised { name, input })
            }
            Message::ActivityCompleted {
                task_id,
                result,
                at,
                ..
            } => (at, EventKind::TaskCompleted { task_id, result }),
            Message::ActivityFailed {
                task_id,
                failure,
                at,
                ..
            } => (
                at,
                EventKind::TaskFailed {
                    task_id,
                    failure: Some(failure),
                },
            ),
            Message::TimerFired {
                timer_id,
                fire_at,
                at,
                ..
            } => (at, EventKind::TimerFired { fire_at, timer_id }),
            Message::ChildCompleted {
                task_id,
                result,
                at,
                ..
            } => (at, EventKind::ChildCompleted { task_id, result }),
            Message::ChildFailed {
                task_id,
                failure,
                at,
                ..
            } => (
                at,
                EventKind::ChildFailed {
                    task_id,
                    failure: Some(failure),
                },
            ),
            Message::EntityCompleted {
                request_id,
                result,
                at,
                ..
            } => {
                let event = wire::operation_completed(&request_id, result.as_deref());
                (at, EventKind::Other(event))
            }
            Message::EntityFailed {
                request_id,
                failure,
                at,
                ..
            } => {
                let event = wire::operation_failed(&request_id, &failure);
                (at, EventKind::Other(event))
            }
            Message::LocksGranted {
                critical_section,
                at,
                ..
            } => (at, EventKind::Other(wire::lock_granted(&critical_section))),
            Message::Start(_)
            | Message::StartFromEntity(_)
            | Message::Terminate { .. }
            | Message::TerminateTree { .. }
            | Message::TreeTerminated { .. }
            | Message::RewindChild { .. }
            | Message::Operation(_)
            | Message::Lock(_)
            | Message::Unlock { .. }
            | Message::ReleaseLocks(_) => return None,
        })
    }
}
