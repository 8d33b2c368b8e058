//! A client that repeats each call until it is answered, over crashes, as SDKs do on `UNAVAILABLE` (S-1.13).
//!
//! It repeats the same message, so what it asks for has to be safe to ask for twice: signals with a request id (S-12.37),
//! starts that replace nothing, reads.

use std::future::Future;
use std::time::Duration;

use mainspring_tests::{Client, Peer};
use tokio::time::{Instant, timeout};
use tonic::{Code, Response, Status};

/// Longest time for which it insists.
const LIMIT: Duration = Duration::from_secs(60);

/// An attempt that takes longer hangs.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(5);

/// One client, on one connection at a time.
pub struct Insistent {
    address: String,
    peer: Option<Peer>,
}

impl Insistent {
    /// A client of whatever serves `address`, now and after each restart.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            peer: None,
        }
    }

    /// Makes a call until the server itself accepts or refuses it.
    pub async fn ask<T, F>(&mut self, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + LIMIT;
        loop {
            if self.peer.is_none() {
                self.peer = Peer::try_connect(&self.address).await;
            }
            if let Some(peer) = &self.peer {
                match timeout(ATTEMPT_LIMIT, call(peer.client())).await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) if is_final(status.code()) => return Err(status),
                    other => {
                        assert!(Instant::now() < deadline, "no answer: {:?}", other.err());
                        self.peer = None;
                    }
                }
            }
            assert!(Instant::now() < deadline, "nobody serves {}", self.address);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Codes that a broken connection never has.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}
