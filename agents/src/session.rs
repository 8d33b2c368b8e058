//! Sessions: conversations that outlive their runs. A session is an entity of small and constant size: counts, what was spent, metadata,
//! and a pointer to the end of the transcript, which lies in pages.
//!
//! A run holds the session's lock while it lasts, so runs of one session follow each other in the order in which they were started, and a
//! run that ends, however it does, lets the next one in. It moves the pointer on at each model call; so the session always ends where a
//! model could be asked, also after a run that was terminated in the middle.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_sdk::{
    Client, Entity, EntityContext, EntityId, Error, Failure, Operation, Operations, Result,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::Spent;
use crate::message::Message;
use crate::page::{Forget, Span, page_id};
use crate::transcript::{KEPT_BYTES_MAX, Transcripts, View};

/// Most metadata of a session, in bytes of JSON: all of it is written whenever the session changes.
const METADATA_BYTES_MAX: usize = 16 * 1024;

/// The state of a session's entity.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Where the transcript ends; `None`: nothing was said.
    last: Option<Span>,
    /// The chain of the run that holds it, or that did not end well.
    open: Option<String>,
    counts: Counts,
    metadata: BTreeMap<String, Value>,
    time_to_live: Option<Duration>,
    /// In milliseconds since 1970: when it is deleted, and for when a look at that is scheduled.
    expires_at_ms: Option<u64>,
    looks_at_ms: Option<u64>,
}

/// What grows from run to run.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    runs: u64,
    messages: u64,
    bytes: u64,
    context_tokens: u64,
    spent: Spent,
}

/// The entity of the session with this key.
pub(crate) fn session_id(key: &str) -> EntityId {
    EntityId::of::<Session>(key)
}

impl Entity for Session {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("agentsession")
    }

    fn operations(operations: &mut Operations<Self>) {
        operations
            .add::<Open>()
            .add::<Advance>()
            .add::<SetMetadata>()
            .add::<SetTimeToLive>()
            .add::<Look>()
            .add::<Discard>();
    }
}

impl Session {
    /// Sees to it that somebody looks once its time may be over. At most one look is on its way, unless the time was shortened.
    fn live_on(&mut self, ctx: &EntityContext, now_ms: u64) -> Result<()> {
        let time_to_live = self.time_to_live.map(millis);
        self.expires_at_ms = time_to_live.map(|time_to_live| now_ms.saturating_add(time_to_live));
        match (self.expires_at_ms, self.looks_at_ms) {
            (Some(expires), looks) if looks.is_none_or(|looks| expires < looks) => {
                self.look_at(ctx, expires)
            }
            _ => Ok(()),
        }
    }

    fn look_at(&mut self, ctx: &EntityContext, at_ms: u64) -> Result<()> {
        self.looks_at_ms = Some(at_ms);
        let at = UNIX_EPOCH + Duration::from_millis(at_ms);
        ctx.signal_entity(ctx.id(), "look", Look { at_ms }, Some(at))
    }

    fn delete(&self, ctx: &EntityContext) -> Result<()> {
        if let Some(last) = &self.last {
            let forget = Forget {
                with_previous: true,
            };
            ctx.signal_entity(&page_id(&last.chain, 0), "forget", forget, None)?;
        }
        ctx.delete();
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Operation `open`: a run begins, and holds the lock.
#[derive(Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) chain: String,
    /// For a session that has none yet.
    pub(crate) time_to_live: Option<Duration>,
}

/// How a run finds its session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) last: Option<Span>,
    pub(crate) context_tokens: u64,
    pub(crate) spent: Spent,
}

impl Operation<Session> for Open {
    type Output = Opened;

    async fn apply(self, session: &mut Session, _: &EntityContext) -> Result<Opened> {
        session.open = Some(self.chain);
        session.counts.runs += 1;
        session.time_to_live = session.time_to_live.or(self.time_to_live);
        Ok(Opened {
            last: session.last.clone(),
            context_tokens: session.counts.context_tokens,
            spent: session.counts.spent,
        })
    }
}

/// Operation `advance`: the transcript goes on to here.
#[derive(Serialize, Deserialize)]
pub(crate) struct Advance {
    pub(crate) chain: String,
    pub(crate) last: Option<Span>,
    /// Since the last time.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) spent: Spent,
    /// Tokens of the whole transcript, as far as they are known.
    pub(crate) context_tokens: u64,
    pub(crate) now_ms: u64,
    pub(crate) is_over: bool,
}

impl Operation<Session> for Advance {
    type Output = ();

    async fn apply(self, session: &mut Session, ctx: &EntityContext) -> Result<()> {
        // A run that failed and is run again from there no longer has the lock.
        if session.open.as_ref() != Some(&self.chain) {
            return Err(Failure::new(
                "SessionMovedOn",
                format!(
                    "session '{}' has gone on with another run, or was deleted",
                    ctx.id().key()
                ),
            )
            .non_retriable());
        }
        session.last = self.last;
        let counts = &mut session.counts;
        counts.messages += self.messages;
        counts.bytes += self.bytes;
        counts.context_tokens = self.context_tokens;
        counts.spent = counts.spent.plus(self.spent);
        if self.is_over {
            session.open = None;
        }
        session.live_on(ctx, self.now_ms)
    }
}

/// Operation `set_metadata`: `null` removes an entry.
#[derive(Serialize, Deserialize)]
struct SetMetadata {
    key: String,
    value: Value,
}

impl Operation<Session> for SetMetadata {
    type Output = ();

    async fn apply(self, session: &mut Session, ctx: &EntityContext) -> Result<()> {
        match self.value {
            Value::Null => session.metadata.remove(&self.key),
            value => session.metadata.insert(self.key, value),
        };
        let bytes = serde_json::to_string(&session.metadata)?.len();
        if bytes > METADATA_BYTES_MAX {
            return Err(Failure::new(
                "MetadataTooLarge",
                format!(
                    "the metadata of session '{}' would take {bytes} bytes, and may take {METADATA_BYTES_MAX}",
                    ctx.id().key()
                ),
            )
            .non_retriable());
        }
        Ok(())
    }
}

/// Operation `set_time_to_live`.
#[derive(Serialize, Deserialize)]
struct SetTimeToLive {
    time_to_live: Option<Duration>,
    now_ms: u64,
}

impl Operation<Session> for SetTimeToLive {
    type Output = ();

    async fn apply(self, session: &mut Session, ctx: &EntityContext) -> Result<()> {
        session.time_to_live = self.time_to_live;
        session.live_on(ctx, self.now_ms)
    }
}

/// Operation `look`: deletes the session if its time is over. Signalled by itself.
#[derive(Serialize, Deserialize)]
struct Look {
    at_ms: u64,
}

impl Operation<Session> for Look {
    type Output = ();

    async fn apply(self, session: &mut Session, ctx: &EntityContext) -> Result<()> {
        if session.looks_at_ms != Some(self.at_ms) {
            // Of an earlier life, or overtaken by a shorter time. The entity may not even be there.
            let is_new = session.counts.runs == 0 && session.time_to_live.is_none();
            if is_new && session.metadata.is_empty() {
                ctx.delete();
            }
            return Ok(());
        }
        session.looks_at_ms = None;
        match session.expires_at_ms {
            None => Ok(()),
            Some(expires) if expires <= self.at_ms => session.delete(ctx),
            Some(expires) => session.look_at(ctx, expires),
        }
    }
}

/// Operation `discard`: deletes the session and its transcript.
#[derive(Serialize, Deserialize)]
struct Discard {}

impl Operation<Session> for Discard {
    type Output = ();

    async fn apply(self, session: &mut Session, ctx: &EntityContext) -> Result<()> {
        session.delete(ctx)
    }
}

/// A session as a client sees it.
///
/// ```
/// # use mainspring_sdk::Client;
/// # async fn example(client: Client) -> Result<(), mainspring_sdk::Error> {
/// use mainspring_agents::SessionClient;
///
/// let session = SessionClient::new(&client, "customer-17");
/// session.set_metadata("language", "nb").await?;
/// for message in session.transcript().await? {
///     println!("{}", message.text());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SessionClient {
    client: Client,
    id: EntityId,
}

/// How a session is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Runs that were begun.
    pub runs: u64,
    /// Messages said in all, those that a compaction has taken away included.
    pub messages: u64,
    /// Their length as JSON.
    pub bytes: u64,
    /// Tokens of the transcript as a model last saw it; estimated if its provider does not tell.
    pub context_tokens: u64,
    /// What all runs have spent.
    pub spent: Spent,
    /// What users keep with it.
    pub metadata: BTreeMap<String, Value>,
    /// How long it lives after it was last used; `None`: until it is deleted.
    pub time_to_live: Option<Duration>,
    /// A run is under way, or the last one failed or was terminated.
    pub is_open: bool,
}

impl SessionClient {
    /// The session of this key, whether there is one or not.
    pub fn new(client: &Client, key: impl AsRef<str>) -> Self {
        Self {
            client: client.clone(),
            id: session_id(key.as_ref()),
        }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        self.id.key()
    }

    async fn state(&self) -> Result<Option<Session>, Error> {
        match self.client.entity_state(&self.id).await? {
            None => Ok(None),
            Some(state) => state.state().map(Some),
        }
    }

    /// How it is; `None`: there is none.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn info(&self) -> Result<Option<SessionInfo>, Error> {
        Ok(self.state().await?.map(|session| SessionInfo {
            runs: session.counts.runs,
            messages: session.counts.messages,
            bytes: session.counts.bytes,
            context_tokens: session.counts.context_tokens,
            spent: session.counts.spent,
            metadata: session.metadata,
            time_to_live: session.time_to_live,
            is_open: session.open.is_some(),
        }))
    }

    /// What was said, as a model would see it now, without instructions.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses, or a page of it is missing.
    pub async fn transcript(&self) -> Result<Vec<Message>, Error> {
        let Some(last) = self.state().await?.and_then(|session| session.last) else {
            return Ok(Vec::new());
        };
        // Nothing of its own, and all that was before.
        let own = Span {
            from: 0,
            to: 0,
            ..last.clone()
        };
        let view = View {
            before: Some(last),
            own,
        };
        let transcripts = Transcripts::new(self.client.clone(), KEPT_BYTES_MAX);
        let read = transcripts.read(&view).await;
        read.map_err(|failure| Error::Payload(format!("session '{}': {failure}", self.key())))
    }

    /// Keeps something with it, at most 16 KiB in all; `()` removes it. Applied once no run is under way.
    ///
    /// # Errors
    ///
    /// When the value cannot be written, is too long, or the scheduler refuses.
    pub async fn set_metadata(
        &self,
        key: impl Into<String>,
        value: impl Serialize,
    ) -> Result<(), Error> {
        let key = key.into();
        let value =
            serde_json::to_value(value).map_err(|error| Error::Payload(error.to_string()))?;
        let bytes = key.len() + value.to_string().len();
        if bytes > METADATA_BYTES_MAX {
            return Err(Error::Payload(format!(
                "metadata '{key}' of session '{}' takes {bytes} bytes, and all of it may take {METADATA_BYTES_MAX}",
                self.key()
            )));
        }
        self.signal("set_metadata", SetMetadata { key, value })
            .await
    }

    /// Deletes it so long after it was last used, beginning now; `None`: never. Applied once no run is under way.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn set_time_to_live(&self, time_to_live: Option<Duration>) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = millis(now.unwrap_or_default());
        let set = SetTimeToLive {
            time_to_live,
            now_ms,
        };
        self.signal("set_time_to_live", set).await
    }

    /// Deletes it and its transcript, once no run is under way.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn delete(&self) -> Result<(), Error> {
        self.signal("discard", Discard {}).await
    }

    async fn signal(&self, operation: &str, input: impl Serialize) -> Result<(), Error> {
        self.client
            .signal_entity(&self.id, operation, input, None)
            .await
    }
}
