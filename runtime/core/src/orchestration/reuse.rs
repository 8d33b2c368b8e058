//! Creating instances, and what becomes of one that has the id already (S-10.*, S-7.6).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Error;
use crate::effect::Effect;
use crate::id::{FreshIds, execution_id};
use crate::message::{FailureDetails, Message, NewInstance};
use crate::time::Timestamp;

use super::{OpenWork, Orchestration, Record, Start, Status, Transition};

/// What a client says of an id that is taken (S-10.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReusePolicy {
    /// A policy was sent at all.
    pub is_given: bool,
    /// Wire values of the statuses that may be replaced.
    pub replaceable: Vec<i32>,
    /// The older layout's action.
    pub legacy_action: LegacyAction,
    /// Sent by the Go SDK.
    pub is_go_client: bool,
}

/// Field 2 of the older policy layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LegacyAction {
    /// Not the older layout.
    #[default]
    None,
    /// Zero on the wire, known by the sender alone.
    Error,
    /// Keep the existing one.
    Ignore,
    /// Replace the existing one.
    Terminate,
}

/// Who creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A client.
    Client(ReusePolicy),
    /// An orchestration, as its child.
    Parent,
    /// An entity.
    Entity,
    /// A restart under the own id.
    Restart,
}

/// What became of a creation.
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// A new instance, or a new one in place of the old.
    Started(Transition),
    /// The existing one stays, and that is fine (S-10.3, S-10.7).
    Ignored,
    /// The existing one stays, and the parent is told (S-7.6).
    Refused(Transition),
}

/// What to do with an existing instance.
enum Decision {
    Replace,
    Keep,
    Tell,
}

/// Creates an instance. `existing`: the one with this id, which is replaced in place or left untouched.
///
/// Errors: `AlreadyExists` and `Invalid` as S-10.3 says; nothing has changed then.
pub fn create(
    existing: &mut Option<Orchestration>,
    request: NewInstance,
    origin: Origin,
    now: Timestamp,
    ids: &mut dyn FreshIds,
) -> Result<Created, Error> {
    let Some(old) = existing else {
        let (instance, transition) = started(request, None, now, ids);
        *existing = Some(instance);
        return Ok(Created::Started(transition));
    };
    match decide(old, &origin)? {
        Decision::Keep => Ok(Created::Ignored),
        Decision::Tell => Ok(Created::Refused(refused(old, &request, now))),
        Decision::Replace => {
            let mut before = Transition::default();
            old.discard(&mut before, now);
            let (instance, mut transition) = started(request, Some(old), now, ids);
            before.effects.append(&mut transition.effects);
            transition.effects = before.effects;
            *existing = Some(instance);
            Ok(Created::Started(transition))
        }
    }
}

fn decide(old: &Orchestration, origin: &Origin) -> Result<Decision, Error> {
    let status = old.record.status;
    let taken = || {
        Err(Error::AlreadyExists(format!(
            "an orchestration instance already exists with id '{}'; it is {status:?}",
            old.id
        )))
    };
    let policy = match origin {
        Origin::Restart => return Ok(Decision::Replace),
        Origin::Parent if status.is_terminal() => return Ok(Decision::Replace),
        Origin::Parent => return Ok(Decision::Tell),
        Origin::Entity if status.is_terminal() => return Ok(Decision::Replace),
        Origin::Entity => return Ok(Decision::Keep),
        Origin::Client(policy) => policy,
    };
    if !policy.is_given {
        return if status.is_terminal() {
            Ok(Decision::Replace)
        } else {
            taken()
        };
    }
    let is_replaceable = policy
        .replaceable
        .iter()
        .any(|s| Status::from_wire(*s) == Some(status));
    match policy.legacy_action {
        LegacyAction::Error => return taken(),
        LegacyAction::Ignore | LegacyAction::Terminate if !is_replaceable => return taken(),
        LegacyAction::Ignore => return Ok(Decision::Keep),
        LegacyAction::Terminate => return Ok(Decision::Replace),
        LegacyAction::None => {}
    }
    if !is_replaceable {
        return taken();
    }
    let may_terminate = policy
        .replaceable
        .iter()
        .any(|s| Status::from_wire(*s) == Some(Status::Terminated));
    if !status.is_terminal() && !may_terminate {
        let message = "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances";
        return Err(Error::Invalid(message.to_owned()));
    }
    Ok(Decision::Replace)
}

/// The child's id belongs to an active instance: the parent's task fails (S-7.6).
fn refused(old: &Orchestration, request: &NewInstance, at: Timestamp) -> Transition {
    let Some(parent) = &request.parent else {
        return Transition::default();
    };
    let text = format!(
        "an orchestration instance already exists with id '{}', and it is active",
        old.id
    );
    let failure = FailureDetails::new("OrchestrationAlreadyExists", &text, false);
    let message = Message::ChildFailed {
        fence: parent.fence.clone(),
        task_id: parent.task_id,
        failure,
        at,
    };
    Transition {
        effects: vec![Effect::Send {
            target: parent.instance.clone(),
            message,
        }],
        ..Transition::default()
    }
}

fn started(
    request: NewInstance,
    old: Option<&Orchestration>,
    now: Timestamp,
    ids: &mut dyn FreshIds,
) -> (Orchestration, Transition) {
    let NewInstance {
        instance,
        name,
        version,
        input,
        tags,
        scheduled_start_at,
        execution_id: wished,
        parent,
        trace,
    } = request;
    let old_record = old.map(|o| &o.record);
    let is_fresh =
        |wished: &crate::id::ExecutionId| old_record.is_none_or(|o| o.execution_id != *wished);
    let scheduled_start_at = scheduled_start_at.filter(|at| *at > now);
    let record = Record {
        name,
        version,
        status: Status::Pending,
        execution_id: wished.filter(is_fresh).unwrap_or_else(|| execution_id(ids)),
        generation: old_record.map_or(1, |o| o.generation + 1),
        created_at: now,
        updated_at: now,
        completed_at: None,
        clock: old_record.and_then(|o| o.clock),
        raised_at: None,
        parent,
        episode_trace: None,
        custom_status: None,
        inherited_custom_status: None,
        output: None,
        failure: None,
        schedulings: 0,
        event_id_max: -1,
        history_events: 0,
        history_chunks: 0,
        history_bytes: 0,
        has_run: false,
        is_started: false,
        carried_taken: 0,
        wants_episode: false,
        suspension: None,
        terminating: None,
        pinned: None,
        mailbox_head: old_record.map_or_else(Default::default, |o| o.mailbox_head),
        overtaken: BTreeSet::new(),
    };
    let start = Start {
        input,
        tags,
        scheduled_start_at,
        trace,
        started_at: now,
        carried: Vec::new(),
    };
    let mut transition = Transition {
        is_new_generation: true,
        old_generation: old_record.map(|o| (o.generation, o.history_chunks)),
        ..Transition::default()
    };
    if let Some(at) = scheduled_start_at {
        transition.effects.push(Effect::StartAt(at));
    }
    (
        Orchestration {
            id: instance,
            record,
            start: Arc::new(start),
            open: OpenWork::default(),
        },
        transition,
    )
}

impl Orchestration {
    /// What an instance that is replaced leaves behind (S-10.5).
    fn discard(&mut self, transition: &mut Transition, now: Timestamp) {
        self.answer_terminations(transition);
        if self.record.status.is_terminal() {
            return;
        }
        transition.effects.push(Effect::FenceEpisode);
        transition.effects.push(Effect::DropActivities {
            execution_id: self.record.execution_id.clone(),
        });
        for timer in self.open_timers() {
            transition.effects.push(Effect::DisarmTimer(timer));
        }
        self.release_locks(transition);
        if let Some(parent) = &self.record.parent {
            let message = self.outcome_for(
                parent,
                Status::Terminated,
                &Some("it was replaced".to_owned()),
                None,
                now,
            );
            transition.effects.push(Effect::Send {
                target: parent.instance.clone(),
                message,
            });
        }
    }
}
