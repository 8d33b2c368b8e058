//! One open stream of work items: what it may take, how much room it has, and the pipe to it.

use std::collections::HashSet;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use mainspring_core::id::HubId;
use mainspring_core::wire;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::queue::{Class, Size};
use super::{Dispatch, Token};
use crate::api::{Filter, Filters, Peer, WorkKind};
use crate::error::Error;

/// Number of a stream; unique while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u64);

/// A work item on its way to its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The encoded `WorkItem`, in parts to be written back to back.
    pub parts: Vec<Bytes>,
    /// Past events that it leaves out since its worker knows them; all there are, or none.
    pub kept_events: u32,
}

impl Outgoing {
    pub(crate) fn whole(parts: Vec<Bytes>) -> Self {
        Self {
            parts,
            kept_events: 0,
        }
    }

    /// Size of the item, in bytes.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// Items of one kind that a stream holds unanswered when it states no limit (S-13.6).
const HELD_DEFAULT: u32 = 100;
/// The same for Java, which works through them one at a time (S-13.16).
const HELD_JAVA: u32 = 8;
/// However much a worker asks for: beyond this its pipe would be the queue.
const HELD_MAX: u32 = 10_000;
/// Bytes that may wait unsent in one stream's pipe: about four of the largest work items.
const UNSENT_BYTES_MAX: usize = 16 << 20;

/// What the dispatcher knows of one stream.
pub(crate) struct StreamState {
    pub(crate) hub: HubId,
    pub(crate) peer: Peer,
    pub(crate) can_stream_history: bool,
    pub(crate) keeps_instances: bool,
    filters: Option<LoweredFilters>,
    /// Its worker knows what an entity is.
    takes_entities: bool,
    limits: [u32; 3],
    held: [u32; 3],
    /// Leases it holds.
    pub(crate) leases: HashSet<Token>,
    pub(crate) sender: mpsc::UnboundedSender<Result<Outgoing, Error>>,
    unsent: Arc<AtomicUsize>,
    /// The client is still reading; a closed stream only waits out its grace (S-13.19).
    pub(crate) is_open: bool,
    /// Its reader seems dead: nothing more until an answer comes (S-13.24).
    pub(crate) is_silent: bool,
    /// It has answered without a token once (S-4.17).
    pub(crate) is_without_tokens: bool,
    pub(crate) opened_at: std::time::Instant,
    /// When the last answer came to anything it was sent; at first, when it was opened.
    pub(crate) answered_at: std::time::Instant,
}

/// Filters as they are compared: lower-case.
struct LoweredFilters {
    orchestrations: Vec<Filter>,
    activities: Vec<Filter>,
    entities: Vec<String>,
}

impl LoweredFilters {
    fn new(filters: Filters) -> Self {
        let lower = |list: Vec<Filter>| {
            list.into_iter()
                .map(|f| Filter {
                    name: f.name.to_lowercase(),
                    versions: f.versions.iter().map(|v| v.to_ascii_lowercase()).collect(),
                })
                .collect()
        };
        Self {
            orchestrations: lower(filters.orchestrations),
            activities: lower(filters.activities),
            entities: filters.entities.iter().map(|n| n.to_lowercase()).collect(),
        }
    }
}

fn index(kind: WorkKind) -> usize {
    match kind {
        WorkKind::Orchestration => 0,
        WorkKind::Activity => 1,
        WorkKind::Entity => 2,
    }
}

impl StreamState {
    pub(crate) fn new(hub: HubId, options: crate::api::StreamOptions) -> (Self, PipeEnd) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        let limit = |stated: u32| match stated {
            0 if options.peer.is_java() => HELD_JAVA,
            0 => HELD_DEFAULT,
            stated => stated.min(HELD_MAX),
        };
        let limits = [
            limit(options.orchestrations_max),
            limit(options.activities_max),
            limit(options.entities_max),
        ];
        // Go and Java workers without entities would swallow the items and never answer; with entities Java states a limit (S-13.8).
        let swallows_entities = options.entities_max == 0 && options.peer.is_without_tokens();
        let now = std::time::Instant::now();
        let state = Self {
            hub,
            is_without_tokens: options.peer.is_without_tokens(),
            peer: options.peer,
            can_stream_history: options.can_stream_history,
            keeps_instances: options.keeps_instances,
            filters: options.filters.map(LoweredFilters::new),
            takes_entities: !swallows_entities,
            limits,
            held: [0; 3],
            leases: HashSet::new(),
            sender,
            unsent: Arc::clone(&unsent),
            is_open: true,
            is_silent: false,
            opened_at: now,
            answered_at: now,
        };
        (state, PipeEnd { receiver, unsent })
    }

    /// Whether it may take items of this kind and class at all (S-13.9, S-13.11, S-13.20).
    pub(crate) fn matches(&self, kind: WorkKind, class: &Class) -> bool {
        if !self.receives(class.size) || (kind == WorkKind::Entity && !self.takes_entities) {
            return false;
        }
        let Some(filters) = &self.filters else {
            return true;
        };
        let list = match kind {
            WorkKind::Orchestration => &filters.orchestrations,
            WorkKind::Activity => &filters.activities,
            WorkKind::Entity => return filters.entities.contains(&class.name),
        };
        list.iter().any(|f| {
            f.name == class.name && (f.versions.is_empty() || f.versions.contains(&class.version))
        })
    }

    /// Whether an item of this size can reach this worker.
    fn receives(&self, size: Size) -> bool {
        match size {
            Size::Ordinary => true,
            Size::Streamable => self.can_stream_history || self.peer.receives_any_size(),
            Size::Unlimited => self.peer.receives_any_size(),
        }
    }

    pub(crate) fn has_room(&self, kind: WorkKind) -> bool {
        self.is_open
            && !self.is_silent
            && self.held[index(kind)] < self.limits[index(kind)]
            && self.unsent.load(Ordering::Relaxed) < UNSENT_BYTES_MAX
    }

    /// How full it is, in thousandths of its limit.
    pub(crate) fn load(&self, kind: WorkKind) -> u32 {
        self.held[index(kind)].saturating_mul(1000) / self.limits[index(kind)].max(1)
    }

    pub(crate) fn reserve(&mut self, kind: WorkKind) {
        self.held[index(kind)] += 1;
    }

    pub(crate) fn release(&mut self, kind: WorkKind) {
        self.held[index(kind)] = self.held[index(kind)].saturating_sub(1);
    }

    /// Puts an item into the pipe. False: the client is gone.
    pub(crate) fn send(&self, item: Outgoing) -> bool {
        self.unsent.fetch_add(item.bytes(), Ordering::Relaxed);
        self.sender.send(Ok(item)).is_ok()
    }
}

/// The reading end of a stream's pipe.
pub(crate) struct PipeEnd {
    receiver: mpsc::UnboundedReceiver<Result<Outgoing, Error>>,
    unsent: Arc<AtomicUsize>,
}

/// Work items for one worker. Starts with a health ping (S-13.2), pings when nothing else was sent for the configured period (S-13.3),
/// and ends with an error, never silently (S-1.14). Dropping it closes the stream: what it holds stays reserved for the grace (S-13.19).
pub struct WorkItems {
    id: StreamId,
    pipe: PipeEnd,
    dispatch: Weak<Dispatch>,
    ping_interval: Duration,
    /// Looks whether something was sent since; to be put off with each item would cost more than the item.
    next_look: Pin<Box<Sleep>>,
    sent_at: Instant,
    has_started: bool,
    has_ended: bool,
}

impl WorkItems {
    pub(crate) fn new(
        id: StreamId,
        pipe: PipeEnd,
        dispatch: Weak<Dispatch>,
        ping_interval: Duration,
    ) -> Self {
        Self {
            id,
            pipe,
            dispatch,
            ping_interval,
            next_look: Box::pin(tokio::time::sleep(ping_interval)),
            sent_at: Instant::now(),
            has_started: false,
            has_ended: false,
        }
    }

    /// By which an answer says that it came over this stream.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The hub that it is subscribed to now, which begins anew when it is created again; `None`: the stream is ended.
    pub fn hub(&self) -> Option<HubId> {
        self.dispatch.upgrade()?.hub_of(self.id)
    }

    /// From now on nothing is sent; answers to what was sent are awaited.
    pub fn take_no_more(&self) {
        if let Some(dispatch) = self.dispatch.upgrade() {
            dispatch.close_to_work(self.id);
        }
    }

    /// Ends the stream. No answer will come to what is unanswered: it is delivered again at once.
    pub fn finish(self) {
        if let Some(dispatch) = self.dispatch.upgrade() {
            dispatch.finish_stream(self.id);
        }
    }

    /// Whether a ping is due; if not, this task is woken when one may be.
    fn is_ping_due(&mut self, context: &mut Context<'_>) -> bool {
        while self.next_look.as_mut().poll(context).is_ready() {
            let due = self.sent_at + self.ping_interval;
            let now = Instant::now();
            let is_due = due <= now;
            let next = if is_due {
                now + self.ping_interval
            } else {
                due
            };
            self.next_look.as_mut().reset(next);
            if is_due {
                return true;
            }
        }
        false
    }
}

impl Stream for WorkItems {
    type Item = Result<Outgoing, Error>;

    /// Never ends with `None` before it gave an error.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if !self.has_started {
            self.has_started = true;
            return Poll::Ready(Some(Ok(Outgoing::whole(wire::health_ping()))));
        }
        if let Poll::Ready(item) = self.pipe.receiver.poll_recv(context) {
            let item = item.unwrap_or_else(|| Err(Error::stopping()));
            match &item {
                Ok(item) => {
                    let bytes = item.bytes();
                    let before = self.pipe.unsent.fetch_sub(bytes, Ordering::Relaxed);
                    if before >= UNSENT_BYTES_MAX
                        && before - bytes < UNSENT_BYTES_MAX
                        && let Some(dispatch) = self.dispatch.upgrade()
                    {
                        dispatch.refill(self.id);
                    }
                }
                Err(_) => self.has_ended = true,
            }
            self.sent_at = Instant::now();
            return Poll::Ready(Some(item));
        }
        if self.is_ping_due(context) {
            self.sent_at = Instant::now();
            return Poll::Ready(Some(Ok(Outgoing::whole(wire::health_ping()))));
        }
        Poll::Pending
    }
}

impl Drop for WorkItems {
    fn drop(&mut self) {
        if let Some(dispatch) = self.dispatch.upgrade() {
            dispatch.close_stream(self.id);
        }
    }
}
