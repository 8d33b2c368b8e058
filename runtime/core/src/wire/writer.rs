//! Writes protobuf fields, in the order and with the omissions of the ordinary encoding.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::message::TraceContext;
use crate::time::Timestamp;

const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

/// The encoded size of a varint, in bytes.
pub(super) fn varint_bytes(value: u64) -> usize {
    // Seven bits a byte; zero takes one byte, too.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The encoded size of a length-delimited field whose tag takes one byte.
pub(super) fn framed_length(body: usize) -> usize {
    1 + varint_bytes(body as u64) + body
}

/// A message under construction.
#[derive(Default)]
pub(super) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
        }
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from(self.buffer)
    }

    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// A length-delimited field's key and length; its `bytes` bytes are written by the caller.
    pub(super) fn open(&mut self, field: u32, bytes: usize) {
        self.key(field, LENGTH_DELIMITED);
        self.varint(bytes as u64);
    }

    pub(super) fn int32(&mut self, field: u32, value: i32) {
        self.int64(field, i64::from(value));
    }

    pub(super) fn int64(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.key(field, VARINT);
            // The protocol encodes negative numbers as their 64-bit two's complement.
            self.varint(value as u64);
        }
    }

    pub(super) fn bool(&mut self, field: u32, value: bool) {
        self.int64(field, i64::from(value));
    }

    pub(super) fn string(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.body(field, value.as_bytes());
        }
    }

    /// Fields that are encoded already.
    pub(super) fn raw(&mut self, fields: &[u8]) {
        self.buffer.extend_from_slice(fields);
    }

    /// A message field whose body is encoded already; written even if that is empty.
    pub(super) fn body(&mut self, field: u32, body: &[u8]) {
        self.open(field, body.len());
        self.buffer.extend_from_slice(body);
    }

    /// A `StringValue`: unset leaves no trace, empty is an empty message.
    pub(super) fn text(&mut self, field: u32, value: Option<&str>) {
        let Some(value) = value else { return };
        if value.is_empty() {
            self.open(field, 0);
        } else {
            self.open(field, framed_length(value.len()));
            self.string(1, value);
        }
    }

    /// A message field, written even if `write` writes nothing.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, LENGTH_DELIMITED);
        // Most bodies are shorter than 128 bytes: leave one byte for the length, and move the
        // body once if it turns out to need more.
        let length_at = self.buffer.len();
        self.buffer.push(0);
        write(self);
        let body = self.buffer.len() - length_at - 1;
        let more = varint_bytes(body as u64) - 1;
        if more > 0 {
            let end = self.buffer.len();
            self.buffer.resize(end + more, 0);
            self.buffer
                .copy_within(length_at + 1..end, length_at + 1 + more);
        }
        let mut rest = body as u64;
        for byte in &mut self.buffer[length_at..length_at + more] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.buffer[length_at + more] = rest as u8;
    }

    pub(super) fn timestamp(&mut self, field: u32, time: Timestamp) {
        self.message(field, |writer| {
            writer.int64(1, time.seconds());
            writer.int64(2, i64::from(time.nanos()));
        });
    }

    pub(super) fn tags(&mut self, field: u32, tags: &BTreeMap<String, String>) {
        for (key, value) in tags {
            self.message(field, |writer| {
                writer.string(1, key);
                writer.string(2, value);
            });
        }
    }

    pub(super) fn trace(&mut self, field: u32, trace: Option<&TraceContext>) {
        if let Some(trace) = trace {
            self.message(field, |writer| {
                writer.string(1, &trace.trace_parent);
                writer.string(2, &trace.span_id);
                writer.text(3, trace.trace_state.as_deref());
            });
        }
    }

    /// An `OrchestrationInstance`.
    pub(super) fn instance(&mut self, field: u32, instance: &str, execution_id: Option<&str>) {
        self.message(field, |writer| {
            writer.string(1, instance);
            writer.text(2, execution_id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_as_long_as_computed() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut writer = Writer::default();
                writer.varint(value);
                assert_eq!(writer.finish().len(), varint_bytes(value), "{value}");
            }
        }
    }

    #[test]
    fn a_message_of_any_length_is_framed_as_one_written_at_once() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_152] {
            let body = vec![7; length];
            let mut patched = Writer::default();
            patched.message(5, |writer| writer.buffer.extend_from_slice(&body));
            let mut direct = Writer::default();
            direct.body(5, &body);
            let patched = patched.finish();
            assert_eq!(patched.len(), framed_length(length));
            assert!(patched == direct.finish(), "length {length}");
        }
    }
}
