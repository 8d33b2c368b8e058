//! Reads transcripts from their pages. Pages never change once they are written, so those that this process has read or written lately
//! are kept, within a bound. What was signalled but is not there yet is waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use mainspring_sdk::{Client, Failure, Result};
use serde::{Deserialize, Serialize};

use crate::message::Message;
use crate::page::{Page, Span, join, page_id};

/// Pages that are asked for at once.
const READS_MAX: usize = 16;

/// How long a page that is not there yet is waited for. A signal takes milliseconds; a scheduler that is behind may take seconds.
const WAIT_MAX: Duration = Duration::from_secs(30);
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Memory that kept pages may take in a process, in bytes.
pub(crate) const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a model has to see: the pages of this run, and what was said before them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Span>,
    pub(crate) own: Span,
}

/// The pages of one scheduler.
pub(crate) struct Transcripts {
    client: Client,
    kept: Mutex<Kept>,
}

/// Pages by chain and number; the one that came first is dropped first.
struct Kept {
    pages: HashMap<(String, u32), Arc<Page>>,
    order: VecDeque<(String, u32)>,
    bytes: usize,
    bytes_max: usize,
}

impl Kept {
    /// The latest counts: the one before may have come to nothing.
    fn insert(&mut self, key: (String, u32), page: Arc<Page>) {
        let weight = page.weight();
        if weight > self.bytes_max {
            return;
        }
        match self.pages.insert(key.clone(), page) {
            None => self.order.push_back(key),
            Some(before) => self.bytes -= before.weight(),
        }
        self.bytes += weight;
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            let dropped = self.pages.remove(&oldest);
            self.bytes -= dropped.map_or(0, |page| page.weight());
        }
    }
}

impl Transcripts {
    pub(crate) fn new(client: Client, bytes_max: usize) -> Self {
        Self {
            client,
            kept: Mutex::new(Kept {
                pages: HashMap::new(),
                order: VecDeque::new(),
                bytes: 0,
                bytes_max,
            }),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Keeps a page that is about to be written, so that nobody in this process has to wait for it. Should it come to nothing, its seal
    /// tells.
    pub(crate) fn keep(&self, chain: &str, number: u32, page: Arc<Page>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert((chain.to_owned(), number), page);
    }

    fn kept(&self, chain: &str, number: u32) -> Option<Arc<Page>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pages.get(&(chain.to_owned(), number)).cloned()
    }

    /// Everything that this shows, oldest first.
    ///
    /// Errors: `TranscriptMissing` if a page does not come, `TranscriptDamaged`.
    pub(crate) async fn read(&self, view: &View) -> Result<Vec<Message>> {
        let mut spans = vec![self.span(&view.own).await?];
        let mut before = view.before.clone();
        while let Some(span) = before {
            let pages = self.span(&span).await?;
            before = pages.first().and_then(|page| page.previous.clone());
            spans.push(pages);
        }
        let pages = spans.iter().rev().flatten().map(AsRef::as_ref);
        join(pages).map_err(|reason| {
            let chain = &view.own.chain;
            Failure::new(
                "TranscriptDamaged",
                format!("transcript '{chain}': {reason}"),
            )
            .non_retriable()
        })
    }

    async fn span(&self, span: &Span) -> Result<Vec<Arc<Page>>> {
        let pages = (span.from..span.to).map(|number| async move {
            match self.kept(&span.chain, number) {
                Some(page) => Ok(page),
                None => self.durable(&span.chain, number).await,
            }
        });
        let pages = futures_util::stream::iter(pages).buffered(READS_MAX);
        let mut pages: Vec<Arc<Page>> = pages.try_collect().await?;
        let mut seal = span.seal;
        for (page, number) in pages.iter_mut().zip(span.from..span.to).rev() {
            if page.seal != seal {
                *page = self.durable(&span.chain, number).await?;
            }
            if page.seal != seal {
                let chain = &span.chain;
                let reason = format!("page {number} of transcript '{chain}' is another one");
                return Err(Failure::new("TranscriptDamaged", reason).non_retriable());
            }
            seal = page.prior;
        }
        Ok(pages)
    }

    /// Reads a page from its entity, and waits for it if it was not written yet.
    async fn durable(&self, chain: &str, number: u32) -> Result<Arc<Page>> {
        let mut pause = PAUSE_FIRST;
        let mut waited = Duration::ZERO;
        loop {
            let entity = page_id(chain, number);
            if let Some(state) = self.client.entity_state(&entity).await? {
                let page: Arc<Page> = Arc::new(state.state()?);
                self.keep(chain, number, Arc::clone(&page));
                return Ok(page);
            }
            if waited >= WAIT_MAX {
                return Err(Failure::new(
                    "TranscriptMissing",
                    format!("page {number} of transcript '{chain}' is not there"),
                ));
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring::testing::TestScheduler;

    use super::*;
    use crate::page::split;

    fn page(text: &str, prior: u64) -> Page {
        let mut pages = split(vec![Message::user(text)], 10_000);
        pages.remove(0).sealed(prior)
    }

    // By hand, without a run that would keep it: as another process reads it.
    #[tokio::test]
    async fn a_page_that_is_not_there_yet_is_waited_for() {
        let scheduler = TestScheduler::start().await.unwrap();
        let _worker = scheduler.worker().entity::<Page>().start().unwrap();
        let transcripts = Arc::new(Transcripts::new(scheduler.client(), KEPT_BYTES_MAX));
        let first = page("first", 0);
        let second = page("second", first.seal);
        let view = View {
            before: None,
            own: Span {
                chain: "c".to_owned(),
                from: 0,
                to: 2,
                seal: second.seal,
            },
        };
        let write = async |number, page: &Page| {
            let entity = page_id("c", number);
            let client = scheduler.client();
            client
                .signal_entity(&entity, "write", page, None)
                .await
                .unwrap();
            scheduler.settle().await.unwrap();
        };
        write(0, &first).await;
        let reader = tokio::spawn({
            let transcripts = Arc::clone(&transcripts);
            async move { transcripts.read(&view).await }
        });
        while transcripts.kept("c", 0).is_none() {
            tokio::task::yield_now().await;
        }
        assert!(!reader.is_finished());
        write(1, &second).await;
        // Written once: what comes later changes nothing.
        write(1, &page("third", first.seal)).await;
        let said = reader.await.unwrap().unwrap();
        assert_eq!(said, [Message::user("first"), Message::user("second")]);
    }

    // An orchestrator was run on a reply that was lost with its scheduler, and again on another one.
    #[tokio::test]
    async fn a_kept_page_that_came_to_nothing_is_not_taken_for_the_one_that_was_written() {
        let scheduler = TestScheduler::start().await.unwrap();
        let _worker = scheduler.worker().entity::<Page>().start().unwrap();
        let transcripts = Transcripts::new(scheduler.client(), KEPT_BYTES_MAX);
        let written = page("written", 0);
        let last = page("last", written.seal);
        transcripts.keep("c", 0, Arc::new(page("lost", 0)));
        transcripts.keep("c", 1, Arc::new(last.clone()));
        let entity = page_id("c", 0);
        let client = scheduler.client();
        client
            .signal_entity(&entity, "write", &written, None)
            .await
            .unwrap();
        let mut own = Span {
            chain: "c".to_owned(),
            from: 0,
            to: 2,
            seal: last.seal,
        };
        let read = async |own: &Span| {
            let own = own.clone();
            transcripts.read(&View { before: None, own }).await
        };
        let said = read(&own).await.unwrap();
        assert_eq!(said, [Message::user("written"), Message::user("last")]);
        own.to = 1;
        let failure = read(&own).await.unwrap_err();
        assert!(failure.is("TranscriptDamaged"), "{failure}");
    }

    #[tokio::test]
    async fn kept_pages_stay_within_their_bound() {
        let scheduler = TestScheduler::start().await.unwrap();
        let transcripts = Transcripts::new(scheduler.client(), 2000);
        for number in 0..100 {
            transcripts.keep("c", number, Arc::new(page("some words", 0)));
        }
        transcripts.keep("c", 100, Arc::new(page(&"x".repeat(3000), 0)));
        let kept = transcripts.kept.lock().unwrap();
        assert!(kept.bytes <= 2000 && kept.bytes > 1000);
        assert_eq!(kept.pages.len(), kept.order.len());
        assert!(kept.pages.contains_key(&("c".to_owned(), 99)));
        assert!(!kept.pages.contains_key(&("c".to_owned(), 100)));
    }
}
