//! Messages that are sent as bytes which are already encoded.
//!
//! A history is stored as encoded events and goes out in work items and history
//! chunks without being decoded. In protobuf a repeated message field is nothing
//! but `tag, length, body` once per element, one after the other, so stored runs
//! of framed events can be placed into a message as they are. Nothing here checks
//! that the parts it is given are well formed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::{HistoryChunk, HistoryEvent, OrchestratorRequest, WorkItem};

/// Field number of `OrchestratorRequest.pastEvents`.
pub const PAST_EVENTS_FIELD: u32 = 3;

/// Field number of `OrchestratorRequest.newEvents`.
pub const NEW_EVENTS_FIELD: u32 = 4;

/// Field number of `HistoryChunk.events`.
pub const CHUNK_EVENTS_FIELD: u32 = 1;

const ORCHESTRATOR_REQUEST_FIELD: u32 = 1;
const COMPLETION_TOKEN_FIELD: u32 = 10;

/// Encodes events as elements of the repeated field `field`, one after the other.
pub fn frame_events<'a>(
    field: u32,
    events: impl IntoIterator<Item = &'a HistoryEvent>,
    buffer: &mut BytesMut,
) {
    for event in events {
        encoding::message::encode(field, event, buffer);
    }
}

/// Copies a run of framed elements, giving each the field number `field`.
/// The bodies are not decoded.
///
/// # Errors
///
/// When `framed` is not a run of complete length-delimited fields.
pub fn retag_events(field: u32, mut framed: Bytes) -> Result<Bytes, DecodeError> {
    let mut buffer = BytesMut::with_capacity(framed.len());
    while framed.has_remaining() {
        let (_, wire_type) = encoding::decode_key(&mut framed)?;
        copy_body(field, wire_type, &mut framed, &mut buffer)?;
    }
    Ok(buffer.freeze())
}

/// Moves one length-delimited body from `source` to `target`, framed as `field`.
fn copy_body(
    field: u32,
    wire_type: WireType,
    source: &mut impl Buf,
    target: &mut BytesMut,
) -> Result<(), DecodeError> {
    let mut body = Bytes::new();
    encoding::bytes::merge(wire_type, &mut body, source, DecodeContext::default())?;
    encoding::bytes::encode(field, &body, target);
    Ok(())
}

macro_rules! raw_message {
    ($(#[$documentation:meta])* $raw:ident, $decoded:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $raw {
            parts: Vec<Bytes>,
        }

        impl $raw {
            /// A message whose encoding is `parts`, one after the other.
            pub fn from_parts(parts: Vec<Bytes>) -> Self {
                Self { parts }
            }

            /// The encoding of this message, in pieces.
            pub fn parts(&self) -> &[Bytes] {
                &self.parts
            }
        }

        impl From<&$decoded> for $raw {
            fn from(message: &$decoded) -> Self {
                Self::from_parts(vec![Bytes::from(message.encode_to_vec())])
            }
        }

        impl Message for $raw {
            fn encode_raw(&self, buffer: &mut impl BufMut) {
                for part in &self.parts {
                    buffer.put_slice(part);
                }
            }

            // Every field of the messages that have a raw form is length-delimited,
            // so a received field becomes one part and nothing is lost.
            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                buffer: &mut impl Buf,
                _context: DecodeContext,
            ) -> Result<(), DecodeError> {
                let mut part = BytesMut::new();
                copy_body(tag, wire_type, buffer, &mut part)?;
                self.parts.push(part.freeze());
                Ok(())
            }

            fn encoded_len(&self) -> usize {
                self.parts.iter().map(Bytes::len).sum()
            }

            fn clear(&mut self) {
                self.parts.clear();
            }
        }
    };
}

raw_message!(
    /// A [`WorkItem`] as encoded bytes.
    RawWorkItem,
    WorkItem
);

raw_message!(
    /// A [`HistoryChunk`] as encoded bytes.
    RawHistoryChunk,
    HistoryChunk
);

impl RawWorkItem {
    /// A turn whose past events are already encoded.
    ///
    /// `past_events` are runs of events framed as [`PAST_EVENTS_FIELD`], oldest
    /// first; they follow any `pastEvents` that `request` itself holds.
    pub fn orchestrator(
        request: &OrchestratorRequest,
        past_events: impl IntoIterator<Item = Bytes>,
        completion_token: &str,
    ) -> Self {
        let mut parts = vec![Bytes::new()];
        parts.extend(past_events);
        let past_length: usize = parts.iter().map(Bytes::len).sum();
        let request_length = request.encoded_len();

        let mut head = BytesMut::with_capacity(request_length + 16);
        encoding::encode_key(
            ORCHESTRATOR_REQUEST_FIELD,
            WireType::LengthDelimited,
            &mut head,
        );
        encoding::encode_varint((request_length + past_length) as u64, &mut head);
        request.encode_raw(&mut head);
        parts[0] = head.freeze();

        // As in the generated encoding, an empty token is left out.
        if !completion_token.is_empty() {
            let mut tail = BytesMut::with_capacity(completion_token.len() + 8);
            encoding::encode_key(COMPLETION_TOKEN_FIELD, WireType::LengthDelimited, &mut tail);
            encoding::encode_varint(completion_token.len() as u64, &mut tail);
            tail.put_slice(completion_token.as_bytes());
            parts.push(tail.freeze());
        }
        Self::from_parts(parts)
    }
}
