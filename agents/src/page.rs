//! Pages: pieces of a transcript of bounded size, each an entity that is written once.
//!
//! A chain is a row of pages with numbers from 0, all written by one run. Its name is made of the run's instance id and the time at which
//! it began, so that runs under the same instance id never share one, and a run that failed and was rewound goes on with its own. The
//! first page that is read of a chain tells what came before it, perhaps in the chain of an earlier run. A session is then no more than a
//! pointer to the end.

use std::borrow::Cow;

use mainspring_sdk::{Entity, EntityContext, EntityId, Operation, Operations, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::message::Message;

/// Some pages of a chain: `from` and those after it, up to but without `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) chain: String,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// The last page's [`Page::seal`]; of an empty span, that of the page before it, or 0.
    pub(crate) seal: u64,
}

impl Span {
    pub(crate) fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

/// One page, and the state of its entity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// False only before the first operation.
    is_written: bool,
    /// Made of all that the chain says up to here, so that a span's last seal tells its pages from all others: an orchestrator may be run
    /// on something that comes to nothing, and what it said then must not be taken for what it says in the end.
    pub(crate) seal: u64,
    /// The seal of the page before.
    pub(crate) prior: u64,
    /// What was said before; on the first page of a span only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Span>,
    /// What a compaction put this page in the place of: never read, but deleted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<Span>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<Message>,
    /// A part of one message that is too long for a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) piece: Option<Piece>,
}

/// A part of a message's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) text: String,
    /// The next page has the next part.
    pub(crate) goes_on: bool,
}

/// The entity that holds page `number` of a chain.
pub(crate) fn page_id(chain: &str, number: u32) -> EntityId {
    EntityId::of::<Page>(format!("{chain}/{number}"))
}

impl Page {
    fn of(messages: Vec<Message>) -> Self {
        Self {
            is_written: true,
            messages,
            ..Self::default()
        }
    }

    fn of_piece(text: &str, goes_on: bool) -> Self {
        Self {
            is_written: true,
            piece: Some(Piece {
                text: text.to_owned(),
                goes_on,
            }),
            ..Self::default()
        }
    }

    /// The same as the next page after the one with that seal.
    pub(crate) fn sealed(mut self, prior: u64) -> Self {
        (self.seal, self.prior) = (0, prior);
        // Plain data, which always can be written.
        self.seal = xxh3_64(&serde_json::to_vec(&self).unwrap_or_default());
        self
    }

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        let messages = self.messages.iter();
        let piece = self.piece.as_ref().map_or(0, |piece| piece.text.len());
        200 + piece
            + messages
                .map(|message| json_bytes(message) + 100)
                .sum::<usize>()
    }
}

/// Puts messages on pages of at most `bytes_max` bytes of messages each. A message that is longer is cut over several.
pub(crate) fn split(messages: Vec<Message>, bytes_max: usize) -> Vec<Page> {
    let mut pages = Vec::new();
    let (mut open, mut open_bytes) = (Vec::new(), 0);
    for message in messages {
        let bytes = json_bytes(&message);
        if open_bytes + bytes > bytes_max && !open.is_empty() {
            pages.push(Page::of(std::mem::take(&mut open)));
            open_bytes = 0;
        }
        match bytes <= bytes_max {
            true => {
                open.push(message);
                open_bytes += bytes;
            }
            false => cut(&message, bytes_max, &mut pages),
        }
    }
    if !open.is_empty() {
        pages.push(Page::of(open));
    }
    pages
}

fn cut(message: &Message, bytes_max: usize, pages: &mut Vec<Page>) {
    let text = serde_json::to_string(message).unwrap_or_default();
    // JSON within JSON: quotes and backslashes take two bytes, nothing takes more, since control characters are written out already.
    let piece_bytes_max = (bytes_max / 2).max(4);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(piece_bytes_max));
        pages.push(Page::of_piece(piece, !after.is_empty()));
        rest = after;
    }
}

/// The messages of pages that follow each other.
///
/// Errors: what does not fit together, for people.
pub(crate) fn join<'a>(
    pages: impl IntoIterator<Item = &'a Page>,
) -> std::result::Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    let mut text = String::new();
    for page in pages {
        messages.extend(page.messages.iter().cloned());
        if let Some(piece) = &page.piece {
            text.push_str(&piece.text);
            if !piece.goes_on {
                let message = serde_json::from_str(&text);
                messages.push(message.map_err(|error| format!("a cut message: {error}"))?);
                text.clear();
            }
        }
    }
    match text.is_empty() {
        true => Ok(messages),
        false => Err("the end of a cut message is missing".to_owned()),
    }
}

/// Length of a message as JSON.
pub(crate) fn json_bytes(message: &Message) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Neither the count nor plain data can fail.
    let _ = serde_json::to_writer(&mut count, message);
    count.0
}

impl Entity for Page {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("agentpage")
    }

    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Write>().add::<Forget>();
    }
}

/// Operation `write`: the page, unless it was written before.
#[derive(Serialize, Deserialize)]
pub(crate) struct Write(pub(crate) Page);

impl Operation<Page> for Write {
    type Output = ();

    async fn apply(self, page: &mut Page, _: &EntityContext) -> Result<()> {
        if !page.is_written {
            *page = self.0;
        }
        Ok(())
    }
}

/// Operation `forget`: deletes this page and, by signals from one to the next, those after it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Forget {
    /// And everything that was said before, in whatever chain.
    pub(crate) with_previous: bool,
}

impl Operation<Page> for Forget {
    type Output = ();

    async fn apply(self, page: &mut Page, ctx: &EntityContext) -> Result<()> {
        if page.is_written {
            let with_previous = self.with_previous;
            let forget = |chain: &str, number| {
                let entity = page_id(chain, number);
                ctx.signal_entity(&entity, "forget", Self { with_previous }, None)
            };
            if let Some((chain, number)) = ctx.id().key().rsplit_once('/')
                && let Ok(number) = number.parse::<u32>()
            {
                forget(chain, number + 1)?;
            }
            if with_previous {
                for span in [&page.previous, &page.replaces].into_iter().flatten() {
                    forget(&span.chain, 0)?;
                }
            }
        }
        ctx.delete();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(messages: &[Message], bytes_max: usize) -> Vec<Page> {
        let pages = split(messages.to_vec(), bytes_max);
        assert_eq!(join(&pages).unwrap(), messages);
        for page in &pages {
            let bytes = serde_json::to_string(page).unwrap().len();
            assert!(bytes <= bytes_max + 150, "{bytes} bytes");
        }
        pages
    }

    #[test]
    fn short_messages_share_a_page() {
        let messages = vec![Message::user("a"), Message::assistant("b")];
        assert_eq!(check(&messages, 1000).len(), 1);
    }

    #[test]
    fn a_page_that_is_full_is_followed_by_another() {
        let messages = vec![Message::user("a".repeat(600)); 3];
        assert_eq!(check(&messages, 1000).len(), 3);
    }

    #[test]
    fn a_message_longer_than_a_page_is_cut_and_joined_again() {
        let long = "\"quoted\" \\ and ünïcödé 🦀\n".repeat(200);
        let messages = vec![
            Message::user("before"),
            Message::user(long),
            Message::user("after"),
        ];
        assert!(check(&messages, 1000).len() > 10);
    }

    #[test]
    fn a_cut_message_without_its_end_is_noticed() {
        let mut pages = split(vec![Message::user("x".repeat(5000))], 1000);
        pages.pop();
        assert!(join(&pages).is_err());
    }
}
