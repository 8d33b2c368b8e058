//! The running scheduler: starts and stops everything in order, and is the handle that requests go through.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, System};
use mainspring_core::id::{HubId, InstanceKey, PartitionId};
use mainspring_core::time::Timestamp;
use mainspring_store::{Cache, Committer, Store, query};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot, watch};

use crate::activation::Input;
use crate::completion::CompletionClock;
use crate::config::HostConfig;
use crate::dispatch::Dispatch;
use crate::error::{Error, ErrorKind};
use crate::hubs::Hubs;
use crate::metrics::Metrics;
use crate::partition::{Barrier, PartitionActor, Services};
use crate::perform::Performer;
use crate::placement::Placement;
use crate::purge::EXPIRED_TIME;

/// Instances looked at in one read during recovery.
const RECOVERY_PAGE: usize = 1_000;

/// Longest that stopping waits for what was accepted to reach the disk.
const STOP_WAIT_MAX: Duration = Duration::from_secs(8);

/// Handle on a running scheduler; cheap to clone.
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) services: Arc<Services>,
    pub(crate) hubs: Arc<Hubs>,
    credits: Arc<Semaphore>,
    /// Turns true when stopping; waits end with it.
    stop: watch::Sender<bool>,
    is_disk_full: AtomicBool,
    system: System,
}

impl Host {
    /// Starts the scheduler on an open store and recovers what was under way. Must be called within a tokio runtime; `on_fatal` is called
    /// when the store can no longer be trusted, and must stop the process.
    pub fn start(
        store: Arc<dyn Store>,
        config: HostConfig,
        on_fatal: impl Fn(mainspring_store::Error) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let runtime = Handle::current();
        let epochs = (0..store.partitions())
            .map(|p| store.acquire(PartitionId(p)))
            .collect::<Result<Vec<_>, _>>()?;
        let fatal: Arc<dyn Fn(mainspring_store::Error) + Send + Sync> = Arc::new(on_fatal);
        let on_fatal = Arc::clone(&fatal);
        let committer =
            Committer::start(Arc::clone(&store), Box::new(move |error| on_fatal(error)));
        let metrics = Arc::<Metrics>::default();
        let dispatch = Dispatch::new(runtime.clone(), &config, Arc::clone(&metrics));
        let services = Arc::new(Services {
            cache: Cache::new(config.cache_bytes_max),
            completed: CompletionClock::new(Arc::clone(&store)),
            store,
            committer,
            epochs,
            dispatch,
            metrics,
            placement: std::sync::OnceLock::new(),
            performer: std::sync::OnceLock::new(),
            config,
            runtime: runtime.clone(),
            hubs: std::sync::OnceLock::new(),
            started_at: Instant::now(),
            is_stopping: AtomicBool::new(false),
            fatal,
        });
        let hubs = Arc::new(Hubs::open(&services)?);
        assert!(
            services.hubs.set(Arc::clone(&hubs)).is_ok(),
            "a host starts once"
        );
        // Whatever is in a mailbox up to here, nobody alive has been told of.
        let until = services.store.synced();
        let retired = query::retired_hubs(&*services.store.read())?;
        let system = start_actors(&services, retired.into_iter().collect())?;
        let inner = Arc::new(Inner {
            credits: Arc::new(Semaphore::new(services.config.requests_max)),
            services,
            hubs,
            stop: watch::Sender::new(false),
            is_disk_full: AtomicBool::new(false),
            system,
        });
        let host = Self { inner };
        host.recover(until)?;
        host.keep_house(&runtime);
        Ok(host)
    }

    /// Stops in order: no new work, streams and waits end, what was accepted is on disk when it returns. The store may then be closed.
    pub async fn stop(&self) {
        self.take_nothing_more();
        // Requests in hand are answered before what they decided is committed and their answers are lost (S-1.13).
        let settled = async {
            let _in_hand = self.all_credits().await;
            self.settle().await;
        };
        if tokio::time::timeout(STOP_WAIT_MAX, settled).await.is_err() {
            tracing::warn!(
                "stopping before everything decided was committed; nothing acknowledged is affected"
            );
        }
        let committer = self.inner.services.committer.clone();
        // Joins the committer's thread, which may be waiting for the disk.
        let _ = tokio::task::spawn_blocking(move || committer.stop()).await;
        self.inner.system.stop();
    }

    /// Stops at once, which is as safe as a crash: nobody is answered any more. What was submitted is written, and no thread of the
    /// scheduler is left a moment later. After [`Host::stop`] nothing is left to do.
    pub fn halt(&self) {
        self.take_nothing_more();
        self.inner.services.committer.end();
        self.inner.system.stop();
    }

    /// Requests and work are refused from now on, streams and waits end.
    fn take_nothing_more(&self) {
        self.inner
            .services
            .is_stopping
            .store(true, Ordering::Release);
        self.inner.stop.send_replace(true);
        self.inner.services.dispatch.stop();
    }

    /// Whether [`Host::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.inner.services.is_stopping()
    }

    /// The time by the scheduler's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.services.now()
    }

    /// Ends when the scheduler stops.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.inner.stop.subscribe();
        let _ = stop.wait_for(|is_stopping| *is_stopping).await;
    }

    /// Waits until everything decided before this call is durable (S-0.6).
    pub(crate) async fn settle(&self) {
        let barriers: Vec<_> = self
            .inner
            .services
            .placement()
            .partitions()
            .iter()
            .map(|partition| {
                let (reply, answer) = oneshot::channel();
                partition.do_send(Barrier { reply });
                answer
            })
            .collect();
        for barrier in barriers {
            let _ = barrier.await;
        }
    }

    /// Waits until no request is in hand; while the answer is held, none is begun. `None`: the scheduler has stopped.
    pub(crate) async fn all_credits(&self) -> Option<SemaphorePermit<'_>> {
        let all = self.inner.services.config.requests_max as u32;
        self.inner.credits.acquire_many(all).await.ok()
    }

    /// Refuses work while stopping, and waits for a credit: requests in hand are bounded.
    pub(crate) async fn credit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if self.is_stopping() {
            return Err(Error::stopping());
        }
        let credits = Arc::clone(&self.inner.credits);
        let credit = credits
            .acquire_owned()
            .await
            .map_err(|_| Error::stopping())?;
        if self.is_stopping() {
            return Err(Error::stopping());
        }
        Ok(credit)
    }

    /// The same for requests that bring new data: refused while the disk is nearly full, before a write can fail.
    pub(crate) async fn credit_for_new_work(&self) -> Result<OwnedSemaphorePermit, Error> {
        if self.inner.is_disk_full.load(Ordering::Relaxed) {
            let least = self.inner.services.config.disk_free_bytes_min;
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "the disk below the data folder has less than {least} bytes left; no new work is taken"
                ),
            ));
        }
        self.credit().await
    }

    /// Sends one input to an instance and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        key: InstanceKey,
        input: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Input,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.inner.services.placement().send(key, input(reply));
        answer.await.unwrap_or_else(|_| Err(self.dropped()))
    }

    /// What a caller is told whose request ended without an answer.
    pub(crate) fn dropped(&self) -> Error {
        if self.is_stopping() {
            return Error::stopping();
        }
        Error::new(
            ErrorKind::Unavailable,
            "the request was dropped after a fault and was not applied; try again",
        )
    }

    /// Looks at every instance that had something to do when the process ended.
    fn recover(&self, until: u64) -> Result<(), Error> {
        let services = &self.inner.services;
        let placement = services.placement();
        // Those of ended generations first: they are the older ones where two have the same name (S-5.10).
        for partition in (0..placement.count()).map(PartitionId) {
            let read = services.store.read();
            let mut last = None;
            loop {
                let page = query::orphans(&*read, partition, last.as_ref(), RECOVERY_PAGE)?;
                let Some(end) = page.last().cloned() else {
                    break;
                };
                for (key, task) in page {
                    services.dispatch.schedule(key, task, true);
                }
                last = Some(end);
            }
        }
        let mut count = 0_usize;
        for partition in (0..placement.count()).map(PartitionId) {
            let read = services.store.read();
            // Both lists, and each instance once.
            let mut found = BTreeSet::new();
            for list in [query::busy, query::waiting] {
                let mut last = None;
                loop {
                    let page = list(&*read, partition, last.as_ref(), RECOVERY_PAGE)?;
                    let Some(end) = page.last().cloned() else {
                        break;
                    };
                    found.extend(page);
                    last = Some(end);
                }
            }
            count += found.len();
            for key in found {
                placement.send(key, Input::Recover { until });
            }
        }
        tracing::info!(instances = count, "recovered");
        Ok(())
    }

    fn keep_house(&self, runtime: &Handle) {
        let inner = Arc::downgrade(&self.inner);
        runtime.spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                let Some(inner) = inner.upgrade().filter(|i| !i.services.is_stopping()) else {
                    return;
                };
                let host = Host { inner };
                host.look_at_disk();
                let services = &host.inner.services;
                let config = &services.config;
                services
                    .dispatch
                    .expire_leases(config.orchestration_lease_max, config.activity_lease_max);
                host.delete_retired_hubs().await;
                // Under virtual time, whoever moves the time does it.
                if !config.clock.is_virtual() {
                    host.purge_expired(EXPIRED_TIME).await;
                }
            }
        });
    }

    fn look_at_disk(&self) {
        let services = &self.inner.services;
        let is_full = services.store.free_bytes() < services.config.disk_free_bytes_min;
        if is_full != self.inner.is_disk_full.swap(is_full, Ordering::Relaxed) {
            if is_full {
                tracing::error!(
                    least = services.config.disk_free_bytes_min,
                    "the disk is nearly full: new work is refused"
                );
            } else {
                tracing::info!("the disk has room again: new work is taken");
            }
        }
    }
}

/// Starts the actors' thread with one actor a partition. One arbiter: on two cores a second gave nothing.
fn start_actors(services: &Arc<Services>, retired: HashSet<HubId>) -> Result<System, Error> {
    let (started, starting) = std::sync::mpsc::channel();
    let services = Arc::clone(services);
    std::thread::Builder::new()
        .name("mainspring-actors".to_owned())
        .spawn(move || {
            let runner = System::new();
            let partitions = runner.block_on(async {
                let actors: Vec<_> = (0..services.store.partitions())
                    .map(|number| {
                        let services = Arc::clone(&services);
                        PartitionActor::new(PartitionId(number), services, retired.clone())
                    })
                    .collect();
                let performer = Performer::new(actors.iter().map(PartitionActor::shared).collect());
                assert!(
                    services.performer.set(performer.start()).is_ok(),
                    "a host starts once"
                );
                actors.into_iter().map(Actor::start).collect()
            });
            // Before the first actor runs: a timer that came due meanwhile fires at once.
            let placement = Arc::new(Placement::new(partitions));
            let instances = Arc::clone(&placement);
            services
                .dispatch
                .connect(move |key, input| instances.send(key, input));
            assert!(
                services.placement.set(placement).is_ok(),
                "a host starts once"
            );
            let _ = started.send(System::current());
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actors' thread ended");
            }
        })
        .map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!("the actors' thread cannot be started: {error}"),
            )
        })?;
    starting
        .recv()
        .map_err(|_| Error::new(ErrorKind::Internal, "the actors' thread ended at its start"))
}
