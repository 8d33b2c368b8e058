//! What most of these tests begin and end with: streams for one kind of work each, and a look at the store.

use mainspring_proto::{OrchestrationStatus, TerminateRequest};
use mainspring_tests::entity::taking;
use mainspring_tests::{Peer, Scheduler, WorkStream};

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
