//! What most of these tests begin and end with: streams for one kind of work each, critical sections, and a look at the store.

use mainspring_proto::history_event::EventType;
use mainspring_proto::{OrchestrationStatus, TerminateRequest};
use mainspring_tests::action::lock;
use mainspring_tests::entity::{success, taking};
use mainspring_tests::{Episode, Peer, Scheduler, WorkStream};

/// Grace of these servers: long enough to answer within it, also on a loaded machine.
pub const GRACE: &str = "1500ms";

/// Name of the orchestrator that tests play by hand.
pub const ORCHESTRATOR: &str = "n";

/// A server, a connection to it, and a stream for orchestrations and one for the entities `counter` and `other`.
pub async fn stage() -> (Scheduler, Peer, WorkStream, WorkStream) {
    let (scheduler, peer, orchestrations) = stage_without_entities().await;
    let entities = entities(&peer).await;
    (scheduler, peer, orchestrations, entities)
}

/// The same without the stream for entities: what is sent to them waits until somebody opens one.
pub async fn stage_without_entities() -> (Scheduler, Peer, WorkStream) {
    let scheduler = Scheduler::start(&["--lease-grace", GRACE]);
    let peer = Peer::connect(&scheduler).await;
    let orchestrations = orchestrations(&peer).await;
    (scheduler, peer, orchestrations)
}

/// A stream for orchestrations and nothing else.
pub async fn orchestrations(peer: &Peer) -> WorkStream {
    peer.open_with(taking(&[ORCHESTRATOR], &[])).await
}

/// A stream for the entities `counter` and `other` and nothing else.
pub async fn entities(peer: &Peer) -> WorkStream {
    peer.open_with(taking(&[], &["counter", "other"])).await
}

/// Starts an orchestration that is played by hand.
pub async fn start(peer: &Peer, id: &str) {
    peer.start(ORCHESTRATOR, id).await;
}

/// Terminates an orchestration.
pub async fn terminate(peer: &Peer, id: &str) {
    let request = TerminateRequest {
        instance_id: id.to_owned(),
        ..Default::default()
    };
    peer.client().terminate_instance(request).await.unwrap();
}

/// Waits for the end of an orchestration, which has to be this one.
pub async fn ends_as(peer: &Peer, id: &str, status: OrchestrationStatus) {
    let state = peer.wait(id).await;
    assert_eq!(state.orchestration_status(), status, "{state:?}");
}

/// Stops a server politely and checks its store.
pub async fn store_is_sound(mut scheduler: Scheduler) {
    scheduler.stop().await;
    let folder = scheduler.data_dir();
    let (code, out, err) =
        Scheduler::run(&["store", "check", "--data-dir", &folder.to_string_lossy()]);
    assert_eq!(code, Some(0), "{out}{err}");
}

/// Gives an entity a state, so that clients see who locks it.
pub async fn create(peer: &Peer, stream: &mut WorkStream, entity: &str) {
    peer.signal(entity, "set", "0").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("0")], Some("0")).await;
}

/// An orchestration that asked for these locks, whether it has them or not.
pub async fn ask(peer: &Peer, orchestrations: &mut WorkStream, id: &str, set: &[&str]) {
    start(peer, id).await;
    let episode = orchestrations.episode().await;
    assert_eq!(episode.request.instance_id, id);
    peer.answer(&episode, vec![lock(1, id, id, set)]).await;
}

/// The next episode, which has to be the one in which this orchestration enters its section.
pub async fn granted(orchestrations: &mut WorkStream, id: &str) -> Episode {
    let episode = orchestrations.episode().await;
    assert_eq!(episode.request.instance_id, id);
    assert_eq!(
        episode.new_kinds(),
        ["OrchestratorStarted", "EntityLockGranted"]
    );
    let grant = &episode.request.new_events[1];
    assert_eq!(grant.event_id, -1);
    let Some(EventType::EntityLockGranted(event)) = &grant.event_type else {
        unreachable!("its kind was compared");
    };
    assert_eq!(event.critical_section_id, id);
    episode
}
