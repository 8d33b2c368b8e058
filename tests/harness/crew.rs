//! A worker of orchestrations and entities that runs on its own, reconnects for ever, and can be lost at any moment.
//!
//! What it does is told by a [`Conduct`]; how it does it is meant to hurt: it is slow at times, so that batches are in
//! its hands when it or the server dies, and it answers at times twice with the same token, as .NET does when it missed
//! the first answer (S-4.7). When its connection goes, what it has in hand is never answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainspring_proto::work_item::Request as Work;
use mainspring_proto::{
    EntityBatchResult, EntityRequest, GetWorkItemsRequest, OrchestratorAction, OrchestratorRequest,
    OrchestratorResponse, WorkItem,
};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::{Chance, Peer};

const RECONNECT_AFTER: Duration = Duration::from_millis(10);

/// Longest time that it takes for an item.
const SLOWNESS: usize = 8;

/// What a worker does with its work.
pub trait Conduct: Send + Sync + 'static {
    /// Decides an episode.
    fn decide(&self, request: &OrchestratorRequest) -> Vec<OrchestratorAction>;

    /// Executes a batch, wholly or in part. The token is put in by the worker.
    fn execute(&self, request: &EntityRequest) -> EntityBatchResult;
}

/// A worker that runs until it is dropped.
pub struct Crew {
    task: JoinHandle<()>,
    severed: watch::Sender<u64>,
    panicked: Arc<AtomicBool>,
}

impl Crew {
    /// Starts working for whatever serves `address`, now and after each restart.
    pub fn start(address: &str, conduct: Arc<dyn Conduct>, chance: Chance) -> Self {
        let (severed, mut is_severed) = watch::channel(0);
        let (address, chance) = (address.to_owned(), Mutex::new(chance));
        let panicked = Arc::new(AtomicBool::new(false));
        let has_panicked = Arc::clone(&panicked);
        let task = tokio::spawn(async move {
            loop {
                if let Some(peer) = Peer::try_connect(&address).await {
                    is_severed.mark_unchanged();
                    tokio::select! {
                        _ = is_severed.changed() => {}
                        () = work(peer, &conduct, &chance, &has_panicked) => {}
                    }
                }
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        });
        Self {
            task,
            severed,
            panicked,
        }
    }

    /// Panics if the conduct has: with what it was asked it could not go on.
    pub fn check(&self) {
        let panicked = self.panicked.load(Ordering::Relaxed);
        assert!(!panicked, "the worker panicked; its words are above");
    }

    /// Drops the connection with everything that is in hand; the worker comes back on a new one.
    pub fn sever(&self) {
        self.severed.send_modify(|count| *count += 1);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Works until the stream ends, however it does. Ends what is in hand when it is dropped.
async fn work(
    peer: Peer,
    conduct: &Arc<dyn Conduct>,
    chance: &Mutex<Chance>,
    panicked: &AtomicBool,
) {
    let mut client = peer.client();
    let Ok(response) = client.get_work_items(GetWorkItemsRequest::default()).await else {
        return;
    };
    let mut items = response.into_inner();
    let mut in_hand = JoinSet::new();
    loop {
        tokio::select! {
            message = items.message() => {
                let Ok(Some(item)) = message else {
                    return;
                };
                let (peer, conduct) = (peer.clone(), Arc::clone(conduct));
                let mood = Mood::draw(chance);
                // An answer that fails is what a crash is about: the server hands the item out again.
                in_hand.spawn(async move { drop(answer(peer, item, &*conduct, mood).await) });
            }
            Some(ended) = in_hand.join_next() => {
                if ended.is_err() {
                    panicked.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// How an item is treated.
struct Mood {
    delay: Option<Duration>,
    is_repeated: bool,
}

impl Mood {
    fn draw(chance: &Mutex<Chance>) -> Self {
        let mut chance = chance.lock().unwrap_or_else(PoisonError::into_inner);
        let is_slow = chance.below(4) == 0;
        Self {
            delay: is_slow.then(|| Duration::from_millis(chance.below(SLOWNESS) as u64)),
            is_repeated: chance.below(16) == 0,
        }
    }
}

async fn answer(
    peer: Peer,
    item: WorkItem,
    conduct: &dyn Conduct,
    mood: Mood,
) -> Result<(), tonic::Status> {
    let times = if mood.is_repeated { 2 } else { 1 };
    let token = item.completion_token;
    match item.request {
        Some(Work::OrchestratorRequest(request)) => {
            let response = OrchestratorResponse {
                instance_id: request.instance_id.clone(),
                actions: conduct.decide(&request),
                completion_token: token,
                ..Default::default()
            };
            mood.pause().await;
            for _ in 0..times {
                peer.client()
                    .complete_orchestrator_task(response.clone())
                    .await?;
            }
        }
        Some(Work::EntityRequestV2(request)) => {
            let result = EntityBatchResult {
                completion_token: token,
                ..conduct.execute(&request)
            };
            mood.pause().await;
            for _ in 0..times {
                peer.client().complete_entity_task(result.clone()).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

impl Mood {
    async fn pause(&self) {
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay).await;
        }
    }
}
