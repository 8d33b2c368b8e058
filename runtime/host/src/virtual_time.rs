//! Time that moves only when told, for tests: a scheduler is brought to rest, then the time is moved to what is due next.
//!
//! A scheduler **rests** when nothing more happens by itself while the time stands still: nothing is undecided or on its way to
//! disk, nothing is with a worker, and nothing waits that a connected worker takes. Two looks in succession that find every partition
//! still, and nothing come in between, prove it: all actors run on one thread and take their messages in order, so what was under way
//! at the first look would have been seen, or counted, by the second.
//!
//! It never guesses how long something takes. Two things are not waited for without end: work that no connected worker takes, and work
//! that is given back again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use mainspring_core::id::{HubId, PartitionId};
use mainspring_core::time::Timestamp;
use mainspring_store::query::{self, TimerKey};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::api::WorkKind;
use crate::clock::Clock;
use crate::dispatch::Class;
use crate::error::Error;
use crate::host::Host;
use crate::partition::{Look, Looked, TimeMoved};

/// How long a worker that takes what nobody takes is waited for, once for each kind and name: one that was just started is still
/// connecting.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// Times in a row that a work item is given back before it is no longer waited for: its next delivery is then 2 s or more away.
const HOPELESS_ATTEMPTS: u32 = 3;

/// Timers fall due at whole microseconds.
const TICK: Duration = Duration::from_micros(1);

/// Whether a work item given back this many times in a row is given up by those who wait.
pub(crate) fn is_hopeless(attempts: u32) -> bool {
    attempts >= HOPELESS_ATTEMPTS
}

/// Work that no connected worker takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unclaimed {
    hub: HubId,
    /// What it is.
    pub kind: WorkKind,
    /// Whose it is, in lower case: of an orchestration, an activity, or an entity.
    pub name: String,
    /// Its version; "" without one.
    pub version: String,
}

impl Unclaimed {
    pub(crate) fn new(hub: HubId, kind: WorkKind, class: &Class) -> Self {
        Self {
            hub,
            kind,
            name: class.name.clone(),
            version: class.version.clone(),
        }
    }
}

/// How a scheduler rests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rest {
    /// What no connected worker takes.
    pub unclaimed: BTreeSet<Unclaimed>,
    /// Work items that their workers have given back again and again.
    pub given_back: usize,
}

/// What a look finds.
enum Found {
    Rest(Rest),
    /// Something is with a worker, or rests in real time: it is told when that may have changed.
    Out,
    /// Something is on its way within the scheduler.
    Moving,
}

/// The time of a scheduler whose clock is virtual.
pub struct VirtualTime {
    host: Host,
    stirred: watch::Receiver<()>,
    /// What was waited for in vain. Whoever holds the lock moves the time.
    forsaken: Mutex<BTreeSet<Unclaimed>>,
}

impl VirtualTime {
    /// `None`: the scheduler goes by the time of the machine.
    pub fn of(host: &Host) -> Option<Self> {
        let stirred = host.inner.services.config.clock.listen()?;
        Some(Self {
            host: host.clone(),
            stirred,
            forsaken: Mutex::default(),
        })
    }

    fn clock(&self) -> &Clock {
        &self.host.inner.services.config.clock
    }

    /// The time by the scheduler's clock.
    pub fn now(&self) -> Timestamp {
        self.clock().now()
    }

    /// Waits until the scheduler rests. What workers have in hand is waited for, however long it takes.
    ///
    /// Work that no connected worker takes is not: after two seconds it is left to itself, and at once when it is met again. Nor is
    /// work that was given back three times in a row.
    ///
    /// # Errors
    ///
    /// When the scheduler stops.
    pub async fn settle(&self) -> Result<Rest, Error> {
        let mut forsaken = self.forsaken.lock().await;
        self.come_to_rest(&mut forsaken).await
    }

    /// Comes to rest, moves the time to what is due next, at most to `until`, and comes to rest again. `None`: nothing was due, and the
    /// time has not moved.
    ///
    /// # Errors
    ///
    /// When the scheduler stops, or its store cannot be read.
    pub async fn step(&self, until: Timestamp) -> Result<Option<Timestamp>, Error> {
        let mut forsaken = self.forsaken.lock().await;
        self.come_to_rest(&mut forsaken).await?;
        let Some(due) = self.next_due()?.filter(|due| *due <= until) else {
            return Ok(None);
        };
        self.move_to(due, &mut forsaken).await?;
        Ok(Some(due))
    }

    /// Moves the time there through everything that falls due before, each at its own time, and comes to rest. Never back.
    ///
    /// # Errors
    ///
    /// As [`VirtualTime::step`].
    pub async fn advance(&self, to: Timestamp) -> Result<Rest, Error> {
        while self.step(to).await?.is_some() {}
        let mut forsaken = self.forsaken.lock().await;
        self.move_to(to, &mut forsaken).await
    }

    async fn move_to(
        &self,
        to: Timestamp,
        forsaken: &mut BTreeSet<Unclaimed>,
    ) -> Result<Rest, Error> {
        self.clock().move_to(to);
        for partition in self.host.inner.services.placement().partitions() {
            partition.do_send(TimeMoved);
        }
        let rest = self.come_to_rest(forsaken).await?;
        self.host.purge_expired(Duration::MAX).await;
        match self.host.inner.services.config.retention {
            Some(_) => self.come_to_rest(forsaken).await,
            None => Ok(rest),
        }
    }

    /// When something is due next, by what is durable: later than now.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        let store = &self.host.inner.services.store;
        let read = store.read();
        let later = self.now().plus(TICK);
        let mut next: Option<Timestamp> = None;
        for partition in (0..store.partitions()).map(PartitionId) {
            let from = TimerKey::first_at(partition, later);
            let first = query::timers(&*read, partition, Some(&from), 1)?;
            let due = first.first().map(|timer| timer.due);
            next = next.into_iter().chain(due).min();
        }
        Ok(next)
    }

    async fn come_to_rest(&self, forsaken: &mut BTreeSet<Unclaimed>) -> Result<Rest, Error> {
        let mut stirred = self.stirred.clone();
        let mut waited_for: Option<(BTreeSet<Unclaimed>, Instant)> = None;
        loop {
            if self.host.is_stopping() {
                return Err(Error::stopping());
            }
            stirred.mark_unchanged();
            let rest = match self.look().await? {
                Found::Moving => continue,
                Found::Out => {
                    tokio::select! {
                        // The sender is the clock's, which the host holds.
                        _ = stirred.changed() => continue,
                        () = self.host.stopped() => return Err(Error::stopping()),
                    }
                }
                Found::Rest(rest) => rest,
            };
            if rest.unclaimed.is_subset(forsaken) {
                // What is taken now may be left again later.
                forsaken.retain(|left| rest.unclaimed.contains(left));
                return Ok(rest);
            }
            let until = match &waited_for {
                Some((same, until)) if *same == rest.unclaimed => *until,
                _ => Instant::now() + CLAIM_WAIT,
            };
            if timeout_at(until, stirred.changed()).await.is_err() {
                forsaken.extend(rest.unclaimed.iter().cloned());
            }
            waited_for = Some((rest.unclaimed, until));
        }
    }

    /// Looks twice, with no request in hand meanwhile: a worker's answer is either decided or has not begun.
    async fn look(&self) -> Result<Found, Error> {
        let _none_in_hand = self.host.all_credits().await;
        self.host.settle().await;
        let before = self.look_at_partitions().await?;
        let stock = self.host.inner.services.dispatch.take_stock();
        let after = self.look_at_partitions().await?;
        if before != after || after.iter().any(|partition| !partition.is_still) {
            return Ok(Found::Moving);
        }
        let is_resting = after.iter().any(|partition| partition.resting > 0);
        if stock.is_moving || is_resting {
            return Ok(Found::Out);
        }
        let given_back: usize = after.iter().map(|partition| partition.given_back).sum();
        Ok(Found::Rest(Rest {
            unclaimed: stock.unclaimed,
            given_back: given_back + stock.given_back,
        }))
    }

    async fn look_at_partitions(&self) -> Result<Vec<Looked>, Error> {
        let partitions = self.host.inner.services.placement().partitions();
        let mut looked = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let (reply, answer) = oneshot::channel();
            partition.do_send(Look { reply });
            looked.push(answer.await.map_err(|_| self.host.dropped())?);
        }
        Ok(looked)
    }
}
