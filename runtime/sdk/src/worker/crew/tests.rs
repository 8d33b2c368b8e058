//! What the crew makes of what it keeps.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use mainspring_proto::history_event::EventType;
use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::{
    ExecutionStartedEvent, OrchestrationInstance, OrchestratorStartedEvent, TaskCompletedEvent,
    TaskScheduledEvent,
};
use prost_types::Timestamp;

use super::*;
use crate::error::Result;
use crate::orchestration::OrchestrationContext;

/// Tells when it was begun, and what the activity said.
async fn begun(ctx: OrchestrationContext, _: ()) -> Result<(u64, u64)> {
    let at: SystemTime = ctx.now();
    let said = ctx.call_by_name("step", ()).await?;
    Ok((at.duration_since(UNIX_EPOCH)?.as_secs(), said))
}

struct Scene {
    crew: Crew,
    answers: mpsc::UnboundedReceiver<Answered>,
}

impl Scene {
    fn new(kept_max: usize) -> Self {
        let nobody = tower::service_fn(|_| async {
            Ok::<_, Infallible>(tonic::Status::unavailable("nobody").into_http())
        });
        let mut registry = Registry::default();
        registry.add_orchestration(begun);
        let (tell, answers) = mpsc::unbounded_channel();
        let settings = Settings {
            kept_max,
            ..Settings::default()
        };
        let crew = Crew::start(
            Arc::new(registry),
            Connection::in_process(nobody),
            settings,
            tell,
            Arc::default(),
        );
        Self {
            crew: crew.unwrap(),
            answers,
        }
    }

    async fn run(&mut self, past: Past, new: Vec<HistoryEvent>) -> OrchestratorResponse {
        self.crew.take(Item {
            token: "t".to_owned(),
            work: Work::Episode(Episode {
                instance: "one".to_owned(),
                execution: "generation".to_owned(),
                past,
                new,
            }),
        });
        match self.answers.recv().await.unwrap().answer {
            Answer::Orchestration(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn replays(&self) -> u64 {
        self.crew.shared.counters.replays.load(Ordering::Relaxed)
    }
}

fn past(events: Vec<HistoryEvent>) -> Past {
    Past::Events(History::Decoded(events))
}

fn event(seconds: i64, id: i32, event: EventType) -> HistoryEvent {
    HistoryEvent {
        event_id: id,
        timestamp: Some(Timestamp { seconds, nanos: 0 }),
        event_type: Some(event),
    }
}

fn episode_began(seconds: i64) -> HistoryEvent {
    let started = OrchestratorStartedEvent::default();
    event(seconds, -1, EventType::OrchestratorStarted(started))
}

/// The first episode, begun at a time.
fn first(seconds: i64) -> Vec<HistoryEvent> {
    let started = ExecutionStartedEvent {
        name: "begun".to_owned(),
        orchestration_instance: Some(OrchestrationInstance {
            instance_id: "one".to_owned(),
            execution_id: Some("generation".to_owned()),
        }),
        ..Default::default()
    };
    vec![
        episode_began(seconds),
        event(seconds, -1, EventType::ExecutionStarted(started)),
    ]
}

/// What history holds after it.
fn after_first(seconds: i64) -> Vec<HistoryEvent> {
    let scheduled = TaskScheduledEvent {
        name: "step".to_owned(),
        ..Default::default()
    };
    let mut events = first(seconds);
    events.push(event(seconds, 1, EventType::TaskScheduled(scheduled)));
    events
}

fn second() -> Vec<HistoryEvent> {
    let completed = TaskCompletedEvent {
        task_scheduled_id: 1,
        result: Some("7".to_owned()),
    };
    vec![
        episode_began(9),
        event(9, -1, EventType::TaskCompleted(completed)),
    ]
}

fn output(response: &OrchestratorResponse) -> Option<&str> {
    let [action] = &response.actions[..] else {
        panic!("{response:?}");
    };
    match action.orchestrator_action_type.as_ref().unwrap() {
        ActionType::CompleteOrchestration(completion) => completion.result.as_deref(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_kept_instance_goes_on_from_its_whole_history_without_a_replay() {
    let mut scene = Scene::new(10);
    scene.run(past(Vec::new()), first(5)).await;
    let response = scene.run(past(after_first(5)), second()).await;
    assert_eq!(output(&response), Some("[5,7]"));
    assert_eq!(scene.replays(), 0);
}

#[tokio::test]
async fn an_episode_that_somebody_else_had_is_replayed_as_they_had_it() {
    // The lease was lost (S-13.19): the history tells of another time.
    let mut scene = Scene::new(10);
    scene.run(past(Vec::new()), first(5)).await;
    let response = scene.run(past(after_first(6)), second()).await;
    assert_eq!(output(&response), Some("[6,7]"));
    assert_eq!(scene.replays(), 1);
}

#[tokio::test]
async fn an_episode_that_comes_again_is_run_as_it_comes_again() {
    // The answer was lost (S-4.16).
    let mut scene = Scene::new(10);
    scene.run(past(Vec::new()), first(5)).await;
    scene.run(past(Vec::new()), first(6)).await;
    let response = scene.run(past(after_first(6)), second()).await;
    assert_eq!(output(&response), Some("[6,7]"));
}

#[tokio::test]
async fn what_is_known_need_not_be_sent_and_what_is_not_is_asked_for() {
    // S-3.32.
    let mut scene = Scene::new(10);
    scene.run(past(Vec::new()), first(5)).await;
    let response = scene.run(Past::Known(3), second()).await;
    assert_eq!(output(&response), Some("[5,7]"));

    scene.run(past(Vec::new()), first(5)).await;
    // An event that it has not seen is among them.
    let response = scene.run(Past::Known(4), second()).await;
    assert!(response.requires_history && response.actions.is_empty());

    let mut forgetful = Scene::new(0);
    forgetful.run(past(Vec::new()), first(5)).await;
    let response = forgetful.run(Past::Known(3), second()).await;
    assert!(response.requires_history && response.actions.is_empty());
}
