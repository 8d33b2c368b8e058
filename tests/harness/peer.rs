//! A connection to the server, and the work that comes through it.

use std::future::Future;
use std::time::Duration;

use mainspring_proto::client::TaskHubSidecarServiceClient;
use mainspring_proto::history_event::EventType;
use mainspring_proto::work_item::Request as Work;
use mainspring_proto::{
    ActivityRequest, ActivityResponse, CreateInstanceRequest, GetInstanceRequest,
    GetWorkItemsRequest, HistoryEvent, OrchestrationState, OrchestratorAction, OrchestratorRequest,
    OrchestratorResponse, StreamInstanceHistoryRequest, WorkItem,
};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::Scheduler;

/// Longest wait for anything that has to happen: a hang fails the test rather than holding it.
pub const PATIENCE: Duration = Duration::from_secs(30);

const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// The generated client, naming its hub on every call.
pub type Client = TaskHubSidecarServiceClient<InterceptedService<Channel, HubName>>;

/// Puts the hub into each request's metadata; plain SDK packages name none.
#[derive(Debug, Clone)]
pub struct HubName(Option<MetadataValue<Ascii>>);

impl Interceptor for HubName {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(hub) = &self.0 {
            request.metadata_mut().insert("taskhub", hub.clone());
        }
        Ok(request)
    }
}

/// Waits for what has to happen soon.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

fn endpoint(scheduler: &Scheduler) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", scheduler.address()))
        .expect("the address is one")
        .tcp_nodelay(true)
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Peer {
    client: Client,
    channel: Channel,
}

impl Peer {
    /// Connects as a peer without peculiarities, naming no hub.
    pub async fn connect(scheduler: &Scheduler) -> Self {
        Self::connect_as(scheduler, "", None).await
    }

    /// Connects with a user agent, such as `grpc-go/1.60.0`, and a hub.
    pub async fn connect_as(scheduler: &Scheduler, user_agent: &str, hub: Option<&str>) -> Self {
        Self::dial(endpoint(scheduler), user_agent, hub).await
    }

    /// Connects so that the server can have only 64 KiB on the way.
    pub async fn connect_narrowly(scheduler: &Scheduler, user_agent: &str) -> Self {
        let narrow = endpoint(scheduler)
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535);
        Self::dial(narrow, user_agent, None).await
    }

    /// Connects to `HOST:PORT`, if anything answers there.
    pub async fn try_connect(address: &str) -> Option<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .ok()?
            .connect()
            .await
            .ok()?;
        Some(Self::on(channel, None))
    }

    async fn dial(mut endpoint: Endpoint, user_agent: &str, hub: Option<&str>) -> Self {
        if !user_agent.is_empty() {
            endpoint = endpoint
                .user_agent(user_agent)
                .expect("the user agent is one");
        }
        let channel = endpoint.connect().await.expect("the server can be reached");
        Self::on(
            channel,
            hub.map(|hub| hub.parse().expect("the hub can be sent")),
        )
    }

    fn on(channel: Channel, hub: Option<MetadataValue<Ascii>>) -> Self {
        let client = TaskHubSidecarServiceClient::with_interceptor(channel.clone(), HubName(hub))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { client, channel }
    }

    /// A client on this connection.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The connection itself, for calls that are not well formed.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Starts an orchestration, and has to succeed.
    pub async fn start(&self, name: &str, id: &str) -> String {
        let request = CreateInstanceRequest {
            name: name.to_owned(),
            instance_id: id.to_owned(),
            ..Default::default()
        };
        self.create(request)
            .await
            .unwrap_or_else(|status| panic!("start {id}: {status}"))
    }

    /// Starts an orchestration and returns its id.
    pub async fn create(&self, request: CreateInstanceRequest) -> Result<String, Status> {
        let call = async { self.client().start_instance(request).await };
        Ok(patiently("StartInstance", call)
            .await?
            .into_inner()
            .instance_id)
    }

    /// The state of an instance, with payloads.
    pub async fn find(&self, id: &str) -> Option<OrchestrationState> {
        let request = GetInstanceRequest {
            instance_id: id.to_owned(),
            get_inputs_and_outputs: true,
        };
        let call = async { self.client().get_instance(request).await };
        let response = patiently("GetInstance", call)
            .await
            .unwrap_or_else(|status| panic!("get {id}: {status}"));
        let response = response.into_inner();
        response.orchestration_state.filter(|_| response.exists)
    }

    /// The state of an instance that has to exist.
    pub async fn get(&self, id: &str) -> OrchestrationState {
        self.find(id)
            .await
            .unwrap_or_else(|| panic!("{id} does not exist"))
    }

    /// Waits for the end of an instance.
    pub async fn wait(&self, id: &str) -> OrchestrationState {
        let request = GetInstanceRequest {
            instance_id: id.to_owned(),
            get_inputs_and_outputs: true,
        };
        let call = async { self.client().wait_for_instance_completion(request).await };
        let response = patiently(&format!("the end of {id}"), call).await;
        let state = response.map(|response| response.into_inner().orchestration_state);
        state
            .unwrap_or_else(|status| panic!("wait for {id}: {status}"))
            .expect("a wait never answers without a state")
    }

    /// The events of the current generation.
    pub async fn history(&self, id: &str) -> Vec<HistoryEvent> {
        self.stream_history(id, None, false)
            .await
            .unwrap_or_else(|status| panic!("history of {id}: {status}"))
            .concat()
    }

    /// The events of a generation, chunk by chunk.
    pub async fn stream_history(
        &self,
        id: &str,
        execution_id: Option<&str>,
        for_work_item_processing: bool,
    ) -> Result<Vec<Vec<HistoryEvent>>, Status> {
        let request = StreamInstanceHistoryRequest {
            instance_id: id.to_owned(),
            execution_id: execution_id.map(str::to_owned),
            for_work_item_processing,
        };
        patiently("StreamInstanceHistory", async {
            let mut stream = self
                .client()
                .stream_instance_history(request)
                .await?
                .into_inner();
            let mut chunks = Vec::new();
            while let Some(chunk) = stream.message().await? {
                chunks.push(chunk.events);
            }
            Ok(chunks)
        })
        .await
    }

    /// Opens a stream that takes everything.
    pub async fn open(&self) -> WorkStream {
        self.open_with(GetWorkItemsRequest::default()).await
    }

    /// Opens a stream, and has to succeed.
    pub async fn open_with(&self, request: GetWorkItemsRequest) -> WorkStream {
        self.try_open(request)
            .await
            .unwrap_or_else(|status| panic!("GetWorkItems: {status}"))
    }

    /// Opens a stream.
    pub async fn try_open(&self, request: GetWorkItemsRequest) -> Result<WorkStream, Status> {
        let call = async { self.client().get_work_items(request).await };
        let items = patiently("GetWorkItems", call).await?.into_inner();
        Ok(WorkStream { items })
    }

    /// Answers an episode, with its token.
    pub async fn answer(&self, episode: &Episode, actions: Vec<OrchestratorAction>) {
        self.respond(episode.response(actions))
            .await
            .unwrap_or_else(|status| {
                panic!("completing {}: {status}", episode.request.instance_id)
            });
    }

    /// Sends any answer to an episode.
    pub async fn respond(&self, response: OrchestratorResponse) -> Result<(), Status> {
        let call = async { self.client().complete_orchestrator_task(response).await };
        patiently("CompleteOrchestratorTask", call).await.map(drop)
    }

    /// Answers an activity with a result, with its token.
    pub async fn finish(&self, activity: &Activity, result: &str) {
        self.report(activity.response(result))
            .await
            .unwrap_or_else(|status| {
                panic!("completing activity {}: {status}", activity.request.task_id)
            });
    }

    /// Sends any answer to an activity.
    pub async fn report(&self, response: ActivityResponse) -> Result<(), Status> {
        let call = async { self.client().complete_activity_task(response).await };
        patiently("CompleteActivityTask", call).await.map(drop)
    }
}

/// One open `GetWorkItems` call. Dropping it is what a dying worker does.
#[derive(Debug)]
pub struct WorkStream {
    items: Streaming<WorkItem>,
}

impl WorkStream {
    /// The next message of the stream, pings included.
    pub async fn message(&mut self) -> Result<Option<WorkItem>, Status> {
        patiently("a message of the work stream", self.items.message()).await
    }

    /// The next work item; pings are passed over.
    pub async fn item(&mut self) -> WorkItem {
        let next = async {
            loop {
                match self.items.message().await {
                    Ok(Some(item)) if !is_ping(&item) => return item,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the work stream ended with OK"),
                    Err(status) => panic!("the work stream ended: {status}"),
                }
            }
        };
        patiently("a work item", next).await
    }

    /// The next work item, which has to be an episode.
    pub async fn episode(&mut self) -> Episode {
        let item = self.item().await;
        match item.request {
            Some(Work::OrchestratorRequest(request)) => Episode {
                request,
                token: item.completion_token,
            },
            other => panic!("expected an episode, got {other:?}"),
        }
    }

    /// The next work item, which has to be an activity.
    pub async fn activity(&mut self) -> Activity {
        let item = self.item().await;
        match item.request {
            Some(Work::ActivityRequest(request)) => Activity {
                request,
                token: item.completion_token,
            },
            other => panic!("expected an activity, got {other:?}"),
        }
    }

    /// Expects no work item for this long.
    pub async fn nothing_for(&mut self, duration: Duration) {
        let deadline = Instant::now() + duration;
        loop {
            match timeout_at(deadline, self.items.message()).await {
                Err(_) => return,
                Ok(Ok(Some(item))) if is_ping(&item) => {}
                Ok(other) => panic!("expected no work, got {other:?}"),
            }
        }
    }

    /// Reads on until the stream ends, and how it did; OK is no way for it to end (S-1.14).
    pub async fn end(&mut self) -> Status {
        let end = async {
            loop {
                match self.items.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the work stream ended with OK"),
                    Err(status) => return status,
                }
            }
        };
        patiently("the end of the work stream", end).await
    }
}

/// Whether a message of a work stream is a health ping.
fn is_ping(item: &WorkItem) -> bool {
    matches!(item.request, Some(Work::HealthPing(_)))
}

/// An orchestrator work item.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// What the worker is asked.
    pub request: OrchestratorRequest,
    /// Its proof of being asked.
    pub token: String,
}

impl Episode {
    /// An answer with these actions.
    pub fn response(&self, actions: Vec<OrchestratorAction>) -> OrchestratorResponse {
        OrchestratorResponse {
            instance_id: self.request.instance_id.clone(),
            completion_token: self.token.clone(),
            actions,
            ..Default::default()
        }
    }

    /// Kinds of the new events, such as `["OrchestratorStarted", "ExecutionStarted"]`.
    pub fn new_kinds(&self) -> Vec<String> {
        kinds(&self.request.new_events)
    }

    /// The current generation.
    pub fn execution_id(&self) -> &str {
        self.request.execution_id.as_deref().unwrap_or_default()
    }
}

/// The kinds of events, by their names in the protocol.
pub fn kinds(events: &[HistoryEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| kind(event.event_type.as_ref()))
        .collect()
}

fn kind(event: Option<&EventType>) -> String {
    let text = format!("{event:?}");
    let name = text.strip_prefix("Some(").unwrap_or(&text);
    name.split('(').next().unwrap_or_default().to_owned()
}

/// An activity work item.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// What the worker is asked.
    pub request: ActivityRequest,
    /// Its proof of being asked.
    pub token: String,
}

impl Activity {
    /// An answer with this result.
    pub fn response(&self, result: &str) -> ActivityResponse {
        ActivityResponse {
            instance_id: self.instance_id().to_owned(),
            task_id: self.request.task_id,
            result: Some(result.to_owned()),
            completion_token: self.token.clone(),
            ..Default::default()
        }
    }

    /// The instance that asks for it.
    pub fn instance_id(&self) -> &str {
        self.request
            .orchestration_instance
            .as_ref()
            .map_or("", |instance| instance.instance_id.as_str())
    }
}
