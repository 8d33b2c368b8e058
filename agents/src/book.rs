//! A run's book: what was said in it and how far that is on pages. It writes by signals to pages, and knows nothing of models and tools.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use mainspring_sdk::{OrchestrationContext, TaskError};

use crate::budget::Spent;
use crate::message::{Message, ToolCall};
use crate::page::{Span, json_bytes, page_id, split};
use crate::session::{Advance, Opened, session_id};
use crate::transcript::{Transcripts, View};

/// Tokens are estimated as a quarter of the bytes where nobody counts them.
const BYTES_PER_TOKEN: u64 = 4;

/// Kept by a run from its start to its end.
pub(crate) struct Book {
    ctx: OrchestrationContext,
    /// Of the run, and its name in the session.
    chain: String,
    transcripts: Arc<Transcripts>,
    page_bytes_max: usize,
    /// The session's key; `None`: the transcript is this run's alone.
    session: Option<String>,
    /// Said, and on no page yet.
    pending: Vec<Message>,
    /// A reply whose tool calls are not all answered yet.
    unanswered: Option<(String, Vec<ToolCall>)>,
    view: View,
    /// Not yet told to the session.
    messages: u64,
    bytes: u64,
    spent: Spent,
    context_tokens: u64,
}

impl Book {
    pub(crate) fn new(
        ctx: OrchestrationContext,
        chain: String,
        transcripts: Arc<Transcripts>,
        page_bytes_max: usize,
        session: Option<(String, Opened)>,
    ) -> Self {
        let own = Span {
            chain: chain.clone(),
            from: 0,
            to: 0,
            seal: 0,
        };
        let (session, opened) = session.unzip();
        Self {
            ctx,
            chain,
            transcripts,
            page_bytes_max,
            session,
            pending: Vec::new(),
            unanswered: None,
            context_tokens: opened.as_ref().map_or(0, |opened| opened.context_tokens),
            view: View {
                before: opened.and_then(|opened| opened.last),
                own,
            },
            messages: 0,
            bytes: 0,
            spent: Spent::default(),
        }
    }

    /// Tokens of the transcript, as far as they are known.
    pub(crate) fn context_tokens(&self) -> u64 {
        self.context_tokens
    }

    /// What a model has to see.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Where the transcript ends; `None`: nothing was said.
    pub(crate) fn end(&self) -> Option<Span> {
        match self.view.own.is_empty() {
            true => self.view.before.clone(),
            false => Some(self.view.own.clone()),
        }
    }

    pub(crate) fn say(&mut self, message: Message) {
        let bytes = json_bytes(&message) as u64;
        self.messages += 1;
        self.bytes += bytes;
        self.context_tokens += bytes / BYTES_PER_TOKEN;
        self.pending.push(message);
    }

    /// A reply; if it calls tools, it is said once they are answered.
    pub(crate) fn reply(&mut self, text: String, tool_calls: Vec<ToolCall>) {
        match tool_calls.is_empty() {
            true => self.say(Message::Assistant { text, tool_calls }),
            false => self.unanswered = Some((text, tool_calls)),
        }
    }

    /// What the calls of the last reply gave, in their order; those beyond it were not run.
    pub(crate) fn results(&mut self, contents: impl IntoIterator<Item = String>) {
        let Some((text, tool_calls)) = self.unanswered.take() else {
            return;
        };
        let mut contents = contents.into_iter();
        self.say(Message::Assistant {
            text,
            tool_calls: tool_calls.clone(),
        });
        for call in &tool_calls {
            let content = contents.next();
            let content = content.unwrap_or_else(|| "not run: the run ended before".to_owned());
            self.say(Message::tool(call, content));
        }
    }

    /// Notes what was spent since the session was told last.
    pub(crate) fn spend(&mut self, spent: Spent) {
        self.spent = self.spent.plus(spent);
    }

    /// What the model counted counts more than an estimate.
    pub(crate) fn counted(&mut self, tokens: u64) {
        if tokens > 0 {
            self.context_tokens = tokens;
        }
    }

    /// From here on the transcript begins with this.
    pub(crate) fn begin_with(&mut self, span: Span, bytes: u64) {
        self.view.before = Some(span);
        self.view.own.from = self.view.own.to;
        self.context_tokens = bytes / BYTES_PER_TOKEN;
    }

    /// Puts what was said on pages.
    pub(crate) fn write(&mut self) -> Result<(), TaskError> {
        for mut page in split(std::mem::take(&mut self.pending), self.page_bytes_max) {
            let own = &mut self.view.own;
            if own.is_empty() {
                page.previous = self.view.before.clone();
            }
            let page = page.sealed(own.seal);
            let entity = page_id(&own.chain, own.to);
            self.ctx.signal_entity(&entity, "write", &page, None)?;
            own.seal = page.seal;
            self.transcripts.keep(&own.chain, own.to, Arc::new(page));
            own.to += 1;
        }
        Ok(())
    }

    /// Tells the session how far it is. Nothing is to be told for a run without one.
    pub(crate) fn advance(
        &mut self,
        is_over: bool,
    ) -> impl Future<Output = Result<(), TaskError>> + Send + use<> {
        let now = self.ctx.now().duration_since(UNIX_EPOCH);
        let advance = Advance {
            chain: self.chain.clone(),
            last: self.end(),
            messages: std::mem::take(&mut self.messages),
            bytes: std::mem::take(&mut self.bytes),
            spent: std::mem::take(&mut self.spent),
            context_tokens: self.context_tokens,
            now_ms: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            is_over,
        };
        let (ctx, session) = (self.ctx.clone(), self.session.clone());
        async move {
            match session {
                None => Ok(()),
                Some(key) => ctx.call_entity(&session_id(&key), "advance", advance).await,
            }
        }
    }
}
