//! Inputs that make an instance's turn panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use mainspring_core::id::PartitionId;
use mainspring_core::orchestration::Status;
use mainspring_host::{ErrorKind, InstanceQuery};
use mainspring_store::{Batch, Epoch, Error, MemoryStore, Read, Space, Store};

use crate::scene::*;

/// A store that panics when history is read, as often as it is told to.
struct Faulty {
    store: MemoryStore,
    panics: Arc<AtomicU32>,
}

struct FaultyRead<'a>(Box<dyn Read + 'a>, &'a AtomicU32);

impl FaultyRead<'_> {
    fn look(&self, space: Space) {
        let fewer = |left: u32| left.checked_sub(1);
        if space == Space::History {
            let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
            let panics = self.1.fetch_update(set, fetch, fewer).is_ok();
            assert!(!panics, "history is not to be read");
        }
    }
}

impl Read for FaultyRead<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.look(space);
        self.0.get(space, key)
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.look(space);
        self.0.range(space, from, to, limit, reverse)
    }
}

impl Store for Faulty {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, Error> {
        self.store.acquire(partition)
    }

    fn write(&self, batch: &Batch) -> Result<u64, Error> {
        self.store.write(batch)
    }

    fn sync(&self) -> Result<(), Error> {
        self.store.sync()
    }

    fn read(&self) -> Box<dyn Read + '_> {
        Box::new(FaultyRead(self.store.read(), &self.panics))
    }

    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    fn synced(&self) -> u64 {
        self.store.synced()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }

    fn free_bytes(&self) -> u64 {
        self.store.free_bytes()
    }

    fn close(&self) -> Result<(), Error> {
        self.store.close()
    }
}

/// The caller is answered, nobody else is held up, and the instance goes on with all that reached it meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_one_instance_concerns_nobody_else_and_is_got_over() {
    let panics = Arc::new(AtomicU32::new(0));
    let store = Arc::new(Faulty {
        store: MemoryStore::new(1),
        panics: Arc::clone(&panics),
    });
    let scene = scene_on(store, |config| config.cache_bytes_max = 1).await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![]).await;
    // More chunks of history than the cache can hold.
    for _ in 0..20 {
        scene.raise("a", "before").await;
        let episode = worker.episode().await;
        worker.answer(&episode, vec![]).await;
    }
    panics.store(1, Ordering::Release);
    // Handing out the next episode reads the history.
    scene.raise("a", "one").await;
    until(async || (panics.load(Ordering::Acquire) == 0).then_some(())).await;
    assert!(scene.view("a").await.is_some(), "it was loaded again");
    // The next time it cannot even be loaded again at once.
    panics.store(2, Ordering::Release);
    let history = scene.host.history(scene.hub, "a", None, false);
    let refused = within(history).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let view = || within(scene.host.get(scene.hub, "a", false));
    assert_eq!(view().await.unwrap_err().kind(), ErrorKind::Internal);
    let page = scene.host.query(scene.hub, InstanceQuery::default());
    assert_eq!(within(page).await.unwrap().views.len(), 1);
    scene.start("b").await;
    let other = worker.episode().await;
    assert_eq!(other.id(), "b");
    until(async || view().await.ok()).await;
    scene.raise("a", "two").await;
    scene.raise("a", "three").await;
    let mut raised = Vec::new();
    while raised.len() < 3 {
        let episode = worker.episode().await;
        assert_eq!(episode.id(), "a");
        raised.extend(episode.raised());
        worker.answer(&episode, vec![]).await;
    }
    assert_eq!(raised, ["one", "two", "three"]);
    assert_eq!(scene.status("a").await, Some(Status::Running));
}
