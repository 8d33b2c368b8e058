//! A host and a scripted worker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use mainspring_core::id::{HubId, InstanceId};
use mainspring_core::message::NewInstance;
use mainspring_core::orchestration::{ReusePolicy, Status, View};
use mainspring_host::{Clock, Error, Host, HostConfig, Peer, StreamOptions, WorkItems};
use mainspring_proto as proto;
use mainspring_proto::history_event::EventType;
use mainspring_proto::orchestrator_action::OrchestratorActionType as Action;
use mainspring_proto::work_item::Request;
use mainspring_store::{MemoryStore, Store};
use prost::Message;
use tokio::task::JoinHandle;

pub const PYTHON: &str = "grpc-python/1.66";
pub const GO: &str = "grpc-go/1.60";
pub const DOTNET: &str = "grpc-dotnet/2.60";

/// Longest that anything here is waited for.
const WAIT_MAX: Duration = Duration::from_secs(20);

pub struct Scene {
    pub host: Host,
    pub hub: HubId,
    store: Arc<dyn Store>,
    config: HostConfig,
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, future)
        .await
        .expect("it comes in time")
}

/// Polls until something is found.
pub async fn until<T>(mut found: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

pub async fn scene() -> Scene {
    scene_with(|_| {}).await
}

pub async fn scene_with(change: impl FnOnce(&mut HostConfig)) -> Scene {
    scene_on(Arc::new(MemoryStore::new(4)), change).await
}

pub async fn scene_on(store: Arc<dyn Store>, change: impl FnOnce(&mut HostConfig)) -> Scene {
    let mut config = HostConfig {
        hub_admin: true,
        lease_grace: Duration::from_millis(200),
        ..HostConfig::default()
    };
    change(&mut config);
    start(store, config).await
}

async fn start(store: Arc<dyn Store>, config: HostConfig) -> Scene {
    let fatal = |error| panic!("the store failed: {error}");
    let host = Host::start(Arc::clone(&store), config.clone(), fatal).unwrap();
    let hub = host.hub(None).await.unwrap();
    Scene {
        host,
        hub,
        store,
        config,
    }
}

impl Scene {
    /// Stops, and starts again on what is stored.
    pub async fn restart(self) -> Scene {
        within(self.host.stop()).await;
        start(self.store, self.config).await
    }

    pub fn worker(&self, user_agent: &str) -> Worker {
        self.worker_with(user_agent, |_| {})
    }

    pub fn worker_with(&self, user_agent: &str, change: impl FnOnce(&mut StreamOptions)) -> Worker {
        let peer = Peer {
            connection: 1,
            user_agent: user_agent.to_owned(),
        };
        let mut options = StreamOptions {
            peer: peer.clone(),
            orchestrations_max: 0,
            activities_max: 0,
            entities_max: 0,
            can_stream_history: false,
            keeps_instances: false,
            filters: None,
            worker: String::new(),
        };
        change(&mut options);
        Worker {
            items: self.host.open_stream(self.hub, options).unwrap(),
            host: self.host.clone(),
            hub: self.hub,
            peer,
        }
    }

    pub async fn start(&self, id: &str) {
        self.create(id, ReusePolicy::default()).await.unwrap();
    }

    pub async fn create(&self, id: &str, policy: ReusePolicy) -> Result<InstanceId, Error> {
        within(self.host.start_instance(self.hub, new(id), policy)).await
    }

    pub async fn view(&self, id: &str) -> Option<View> {
        within(self.host.get(self.hub, id, true)).await.unwrap()
    }

    pub async fn status(&self, id: &str) -> Option<Status> {
        self.view(id).await.map(|v| v.status)
    }

    pub async fn completed(&self, id: &str) -> View {
        within(self.host.wait_completed(self.hub, id, true))
            .await
            .unwrap()
    }

    pub async fn raise(&self, id: &str, name: &str) {
        within(self.host.raise_event(self.hub, id, name.to_owned(), None))
            .await
            .unwrap();
    }

    /// Names of the kinds of events in the history.
    pub async fn history(&self, id: &str) -> Vec<&'static str> {
        let history = within(self.host.history(self.hub, id, None, false))
            .await
            .unwrap();
        let chunks = history
            .messages
            .into_iter()
            .map(|parts| proto::HistoryChunk::decode(parts.concat().as_slice()).unwrap());
        chunks
            .flat_map(|chunk| chunk.events)
            .map(|event| kind(&event))
            .collect()
    }
}

pub fn new(id: &str) -> NewInstance {
    NewInstance {
        instance: InstanceId::parse(id).unwrap(),
        name: "Order".to_owned(),
        version: None,
        input: Some(format!("input of {id}")),
        tags: Default::default(),
        scheduled_start_at: None,
        execution_id: None,
        parent: None,
        trace: None,
    }
}

pub fn kind(event: &proto::HistoryEvent) -> &'static str {
    match event.event_type.as_ref().unwrap() {
        EventType::OrchestratorStarted(_) => "started",
        EventType::ExecutionStarted(_) => "begun",
        EventType::ExecutionCompleted(_) => "completed",
        EventType::ExecutionTerminated(_) => "terminated",
        EventType::ExecutionSuspended(_) => "suspended",
        EventType::ExecutionResumed(_) => "resumed",
        EventType::ExecutionRewound(_) => "rewound",
        EventType::TaskScheduled(_) => "task",
        EventType::TaskCompleted(_) => "task completed",
        EventType::TaskFailed(_) => "task failed",
        EventType::TimerCreated(_) => "timer",
        EventType::TimerFired(_) => "timer fired",
        EventType::SubOrchestrationInstanceCreated(_) => "child",
        EventType::SubOrchestrationInstanceCompleted(_) => "child completed",
        EventType::SubOrchestrationInstanceFailed(_) => "child failed",
        EventType::EventRaised(_) => "raised",
        EventType::EventSent(_) => "sent",
        other => panic!("unexpected event {other:?}"),
    }
}

/// An episode in hand.
#[derive(Debug, Clone)]
pub struct Episode {
    pub request: proto::OrchestratorRequest,
    pub token: String,
    /// Past events left out.
    pub kept: u32,
}

impl Episode {
    pub fn id(&self) -> &str {
        &self.request.instance_id
    }

    pub fn new_events(&self) -> Vec<&'static str> {
        self.request.new_events.iter().map(kind).collect()
    }

    /// Names of the events raised that it brings.
    pub fn raised(&self) -> Vec<String> {
        let events = self.request.new_events.iter();
        events
            .filter_map(|e| match e.event_type.as_ref()? {
                EventType::EventRaised(raised) => Some(raised.name.clone()),
                _ => None,
            })
            .collect()
    }
}

/// An activity in hand.
#[derive(Debug, Clone)]
pub struct Activity {
    pub request: proto::ActivityRequest,
    pub token: String,
}

pub struct Worker {
    pub items: WorkItems,
    host: Host,
    hub: HubId,
    pub peer: Peer,
}

impl Worker {
    async fn next(&mut self) -> proto::WorkItem {
        self.next_with_kept().await.0
    }

    async fn next_with_kept(&mut self) -> (proto::WorkItem, u32) {
        loop {
            let outgoing = within(self.items.next()).await.unwrap().unwrap();
            let item = proto::WorkItem::decode(outgoing.parts.concat().as_slice()).unwrap();
            if !matches!(item.request, Some(Request::HealthPing(_))) {
                return (item, outgoing.kept_events);
            }
        }
    }

    pub async fn episode(&mut self) -> Episode {
        let (item, kept) = self.next_with_kept().await;
        match item.request {
            Some(Request::OrchestratorRequest(request)) => Episode {
                request,
                token: item.completion_token,
                kept,
            },
            other => panic!("not an episode: {other:?}"),
        }
    }

    pub async fn activity(&mut self) -> Activity {
        let item = self.next().await;
        match item.request {
            Some(Request::ActivityRequest(request)) => Activity {
                request,
                token: item.completion_token,
            },
            other => panic!("not an activity: {other:?}"),
        }
    }

    /// Whether nothing was sent so far but pings. To be called after an answer that came later than what could have sent something.
    pub fn has_nothing(&mut self) -> bool {
        while let Some(item) = self.items.next().now_or_never() {
            let outgoing = item.unwrap().unwrap();
            let item = proto::WorkItem::decode(outgoing.parts.concat().as_slice()).unwrap();
            if !matches!(item.request, Some(Request::HealthPing(_))) {
                return false;
            }
        }
        true
    }

    pub async fn answer(&self, episode: &Episode, actions: Vec<Action>) {
        self.try_answer(episode, actions).await.unwrap();
    }

    pub async fn try_answer(&self, episode: &Episode, actions: Vec<Action>) -> Result<(), Error> {
        let actions = actions.into_iter().enumerate();
        let numbered = actions.map(|(index, action)| proto::OrchestratorAction {
            id: index as i32 + 1,
            orchestrator_action_type: Some(action),
        });
        self.respond(proto::OrchestratorResponse {
            instance_id: episode.id().to_owned(),
            actions: numbered.collect(),
            completion_token: episode.token.clone(),
            ..Default::default()
        })
        .await
    }

    pub async fn respond(&self, response: proto::OrchestratorResponse) -> Result<(), Error> {
        let over = Some(self.items.id());
        let completed = self
            .host
            .complete_orchestration(self.hub, &self.peer, over, response);
        within(completed).await
    }

    pub async fn complete_activity(&self, activity: &Activity, result: &str) {
        self.completing(activity, Ok(result)).await.unwrap();
    }

    pub async fn fail_activity(&self, activity: &Activity) {
        self.completing(activity, Err(failure())).await.unwrap();
    }

    /// Tells the outcome of an activity, and leaves the wait for its being durable to the test.
    pub fn completing(
        &self,
        activity: &Activity,
        outcome: Result<&str, proto::TaskFailureDetails>,
    ) -> JoinHandle<()> {
        let instance = activity.request.orchestration_instance.clone().unwrap();
        let (result, failure_details) = match outcome {
            Ok(result) => (Some(result.to_owned()), None),
            Err(failure) => (None, Some(failure)),
        };
        let response = proto::ActivityResponse {
            instance_id: instance.instance_id,
            task_id: activity.request.task_id,
            result,
            failure_details,
            completion_token: activity.token.clone(),
        };
        let (host, hub, peer) = (self.host.clone(), self.hub, self.peer.clone());
        tokio::spawn(async move {
            let completed = host.complete_activity(hub, &peer, response);
            within(completed).await.unwrap();
        })
    }
}

pub fn failure() -> proto::TaskFailureDetails {
    proto::TaskFailureDetails {
        error_type: "Oops".to_owned(),
        error_message: "it failed".to_owned(),
        ..Default::default()
    }
}

pub fn complete(result: &str) -> Action {
    Action::CompleteOrchestration(proto::CompleteOrchestrationAction {
        orchestration_status: proto::OrchestrationStatus::Completed as i32,
        result: Some(result.to_owned()),
        ..Default::default()
    })
}

pub fn fail() -> Action {
    Action::CompleteOrchestration(proto::CompleteOrchestrationAction {
        orchestration_status: proto::OrchestrationStatus::Failed as i32,
        failure_details: Some(failure()),
        ..Default::default()
    })
}

pub fn continue_as_new(carryover_events: Vec<proto::HistoryEvent>) -> Action {
    Action::CompleteOrchestration(proto::CompleteOrchestrationAction {
        orchestration_status: proto::OrchestrationStatus::ContinuedAsNew as i32,
        carryover_events,
        ..Default::default()
    })
}

pub fn task(name: &str) -> Action {
    Action::ScheduleTask(proto::ScheduleTaskAction {
        name: name.to_owned(),
        ..Default::default()
    })
}

pub fn child(id: &str) -> Action {
    Action::CreateSubOrchestration(proto::CreateSubOrchestrationAction {
        instance_id: id.to_owned(),
        name: "Child".to_owned(),
        ..Default::default()
    })
}

/// A timer that fires `delay` from now.
pub fn timer(delay: Duration) -> Action {
    let at = Clock::system().now().plus(delay);
    Action::CreateTimer(proto::CreateTimerAction {
        fire_at: Some(mainspring_core::wire::proto_timestamp(at)),
    })
}

pub fn send(instance: &str, name: &str) -> Action {
    Action::SendEvent(proto::SendEventAction {
        instance: Some(proto::OrchestrationInstance {
            instance_id: instance.to_owned(),
            execution_id: None,
        }),
        name: name.to_owned(),
        data: None,
    })
}

impl Worker {
    /// The next item, whichever kind it is.
    pub async fn either(&mut self) -> Result<Episode, Activity> {
        let item = self.next().await;
        let token = item.completion_token;
        match item.request {
            Some(Request::OrchestratorRequest(request)) => Ok(Episode {
                request,
                token,
                kept: 0,
            }),
            Some(Request::ActivityRequest(request)) => Err(Activity { request, token }),
            other => panic!("neither episode nor activity: {other:?}"),
        }
    }
}
