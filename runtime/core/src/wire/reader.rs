//! Reads protobuf fields without building the generated messages.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::message::TraceContext;
use crate::time::Timestamp;

/// Why bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Corrupt(format!("malformed history: {}", malformed.0))
    }
}

/// The value of one field, still encoded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// A number.
    Number(u64),
    /// A string, bytes or a message.
    Body(&'a [u8]),
    /// A fixed-width number; no message read here has one.
    Fixed,
}

/// The fields of one message, in the order in which they stand.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are still to be read.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next field's number and value, or none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed("field number too large"))?;
        if field == 0 {
            return Err(Malformed("field number zero"));
        }
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?)
                    .map_err(|_| Malformed("length beyond the end"))?;
                Value::Body(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed("unknown wire type")),
        };
        Ok(Some((field, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed("length beyond the end"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self
                .rest
                .split_first()
                .ok_or(Malformed("number cut short"))?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("number too long"))
    }
}

impl<'a> Value<'a> {
    pub(super) fn int32(self) -> Result<i32, Malformed> {
        // As in the ordinary decoding, only the low 32 bits count.
        self.int64().map(|number| number as i32)
    }

    pub(super) fn int64(self) -> Result<i64, Malformed> {
        match self {
            Value::Number(number) => Ok(number as i64),
            Value::Body(_) | Value::Fixed => Err(Malformed("not a number")),
        }
    }

    pub(super) fn bool(self) -> Result<bool, Malformed> {
        self.int64().map(|number| number != 0)
    }

    pub(super) fn body(self) -> Result<&'a [u8], Malformed> {
        match self {
            Value::Body(body) => Ok(body),
            Value::Number(_) | Value::Fixed => Err(Malformed("not a body")),
        }
    }

    pub(super) fn string(self) -> Result<String, Malformed> {
        std::str::from_utf8(self.body()?)
            .map(str::to_owned)
            .map_err(|_| Malformed("text is not UTF-8"))
    }

    /// A `StringValue`.
    pub(super) fn text(self) -> Result<String, Malformed> {
        let mut text = String::new();
        each(self.body()?, |field, value| {
            if field == 1 {
                text = value.string()?;
            }
            Ok(())
        })?;
        Ok(text)
    }

    pub(super) fn timestamp(self) -> Result<Timestamp, Malformed> {
        let (mut seconds, mut nanos) = (0, 0);
        each(self.body()?, |field, value| {
            match field {
                1 => seconds = value.int64()?,
                2 => nanos = value.int32()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(Timestamp::new(seconds, i64::from(nanos)))
    }

    pub(super) fn trace(self) -> Result<TraceContext, Malformed> {
        let mut trace = TraceContext::default();
        each(self.body()?, |field, value| {
            match field {
                1 => trace.trace_parent = value.string()?,
                2 => trace.span_id = value.string()?,
                3 => trace.trace_state = Some(value.text()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(trace)
    }

    /// Adds one entry of a map of strings.
    pub(super) fn tag(self, tags: &mut BTreeMap<String, String>) -> Result<(), Malformed> {
        let (mut key, mut tag) = (String::new(), String::new());
        each(self.body()?, |field, value| {
            match field {
                1 => key = value.string()?,
                2 => tag = value.string()?,
                _ => {}
            }
            Ok(())
        })?;
        tags.insert(key, tag);
        Ok(())
    }
}

/// Hands each field of a message to `visit`.
pub(super) fn each<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next()? {
        visit(field, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(), Malformed> {
        each(bytes, |_, _| Ok(()))
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_and_never_panic() {
        for (bytes, why) in [
            (&b"\x0a\x05ab"[..], "length beyond the end"),
            (b"\x0a", "number cut short"),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "number too long",
            ),
            (b"\x0b", "unknown wire type"),
            (b"\x00\x00", "field number zero"),
            (b"\x09\x00", "length beyond the end"),
            (
                b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "length beyond the end",
            ),
        ] {
            assert_eq!(read(bytes), Err(Malformed(why)), "{bytes:x?}");
        }
    }

    #[test]
    fn fixed_width_fields_of_newer_peers_are_passed_over() {
        assert_eq!(read(b"\x09\0\0\0\0\0\0\0\0\x0d\0\0\0\0\x08\x01"), Ok(()));
    }
}
