//! How far the server has come: opening its store, serving, draining.
//!
//! The ports are bound before the store is open, because some workers never try again when their first call is refused
//! (S-1.16). Calls that come early are held here; everything that shows readiness reads it here.

use std::sync::OnceLock;
use std::time::Duration;

use mainspring_host::Host;
use tokio::sync::watch;
use tonic::Status;

/// Longest that a call is held while the store opens. Workers say `Hello` with a deadline of 30 s (S-1.10, S-1.16).
const HELD_MAX: Duration = Duration::from_secs(25);

/// Where the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The store is being opened and recovered; calls are held.
    Opening,
    /// Calls are answered.
    Serving,
    /// Nothing new is taken; what was accepted is on its way to the disk.
    Draining,
}

/// The scheduler behind the ports, once it is there.
pub(crate) struct Life {
    /// Set once, when the store is open. Calls read it without a lock.
    host: OnceLock<Host>,
    phase: watch::Sender<Phase>,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self {
            host: OnceLock::new(),
            phase: watch::Sender::new(Phase::Opening),
        }
    }

    /// The store is open. Later calls change nothing.
    pub(crate) fn opened(&self, host: Host) {
        if self.host.set(host).is_ok() {
            self.phase.send_if_modified(|phase| {
                let is_first = *phase == Phase::Opening;
                if is_first {
                    *phase = Phase::Serving;
                }
                is_first
            });
        }
    }

    /// From now on the server is not ready, and held calls are refused.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Ends when the server drains.
    pub(crate) async fn drained(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        drop(phase.wait_for(|phase| *phase == Phase::Draining).await);
    }

    /// Where the server stands, now and later; holds on to nothing else.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The scheduler, if the store is open.
    pub(crate) fn host_now(&self) -> Option<&Host> {
        self.host.get()
    }

    /// The scheduler; waits for the store to open.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` when the store takes longer than a call can be held, or when the server stops first. Nothing of the
    /// call was applied.
    pub(crate) async fn host(&self) -> Result<&Host, Status> {
        match self.host.get() {
            Some(host) => Ok(host),
            None => self.wait().await,
        }
    }

    async fn wait(&self) -> Result<&Host, Status> {
        let mut phase = self.phase.subscribe();
        let changed = phase.wait_for(|phase| *phase != Phase::Opening);
        if tokio::time::timeout(HELD_MAX, changed).await.is_err() {
            return Err(Status::unavailable("the store is still opening; try again"));
        }
        self.host
            .get()
            .ok_or_else(|| Status::unavailable("the server is stopping; try again"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use tonic::Code;

    use super::*;

    /// S-1.16.
    #[tokio::test(start_paused = true)]
    async fn a_call_that_comes_early_is_held_for_25_seconds() {
        let start = tokio::time::Instant::now();
        let status = Life::new().host().await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(start.elapsed(), HELD_MAX);
    }

    /// S-1.10.
    #[tokio::test(start_paused = true)]
    async fn a_held_call_is_refused_when_the_server_stops() {
        let life = Arc::new(Life::new());
        let held = tokio::spawn({
            let life = Arc::clone(&life);
            async move { life.host().await.err().unwrap() }
        });
        tokio::task::yield_now().await;
        life.drain();
        let status = held.await.unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(*life.phase().borrow(), Phase::Draining);
    }
}
