//! Persisted records: a version byte, then the record as a MessagePack array.
//!
//! Fields are only ever added at the end of a record, with a default, so version 1 reads all that version 1 wrote. A change
//! that this cannot express gets a new version byte and a branch in `decode`. History chunks are opaque and carry no
//! version of their own; the version of the data folder covers them.

use bytes::{BufMut, Bytes, BytesMut};
use mainspring_core::effect::{ActivityTask, Timer};
use mainspring_core::entity::Operation;
use mainspring_core::id::HubId;
use mainspring_core::message::Message;
use mainspring_core::orchestration::{Record, Start, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Version of every record kind written by this program.
pub const RECORD_VERSION: u8 = 1;

/// A type that the store keeps as a record.
pub trait Persisted: Serialize + DeserializeOwned {
    /// What it is called in messages.
    const NAME: &'static str;
}

impl Persisted for Record {
    const NAME: &'static str = "record";
}

impl Persisted for mainspring_entities::Record {
    const NAME: &'static str = "entity record";
}

impl Persisted for Operation {
    const NAME: &'static str = "operation";
}

impl Persisted for Start {
    const NAME: &'static str = "start";
}

impl Persisted for Message {
    const NAME: &'static str = "message";
}

impl Persisted for Timer {
    const NAME: &'static str = "timer";
}

impl Persisted for ActivityTask {
    const NAME: &'static str = "activity task";
}

/// Encodes at the end of `arena` and splits the encoded part off: many records share one allocation.
pub fn encode<T: Persisted>(arena: &mut BytesMut, value: &T) -> Bytes {
    arena.put_u8(RECORD_VERSION);
    rmp_serde::encode::write(&mut arena.writer(), value)
        .expect("a record is plain data and memory takes every byte");
    arena.split().freeze()
}

/// Decodes a record.
///
/// Errors: `Corrupt`, naming the record by `place`, for an unknown version and for bytes that are no such record.
pub fn decode<T: Persisted>(bytes: &[u8], place: impl FnOnce() -> String) -> Result<T, Error> {
    let corrupt = |cause: String| {
        let place = format!("{} of {}", T::NAME, place());
        Error::Corrupt { place, cause }
    };
    match bytes.split_first() {
        Some((&RECORD_VERSION, body)) => {
            rmp_serde::from_slice(body).map_err(|error| corrupt(error.to_string()))
        }
        Some((version, _)) => Err(corrupt(format!("unknown record version {version}"))),
        None => Err(corrupt("the value is empty".to_owned())),
    }
}

/// Statuses in the lists by time, by the numbers that the protocol gives them.
const STATUS_CODES: [(u8, Status); 7] = [
    (0, Status::Running),
    (1, Status::Completed),
    (3, Status::Failed),
    (4, Status::Canceled),
    (5, Status::Terminated),
    (6, Status::Pending),
    (7, Status::Suspended),
];

/// The value of an entry in the created or completed index.
pub(crate) fn encode_status(status: Status) -> Bytes {
    static CODES: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    let code = STATUS_CODES
        .iter()
        .find_map(|(code, known)| (*known == status).then_some(usize::from(*code)))
        .expect("every status has a code");
    Bytes::from_static(&CODES[code..=code])
}

pub(crate) fn decode_status(value: &[u8], place: impl FnOnce() -> String) -> Result<Status, Error> {
    let status = |code: u8| {
        STATUS_CODES
            .iter()
            .find_map(|(known, status)| (*known == code).then_some(*status))
    };
    match value {
        [code] => status(*code),
        _ => None,
    }
    .ok_or_else(|| Error::corrupt(place(), format!("no status: {}", hex(value))))
}

/// The value of a hub name.
pub(crate) fn encode_hub(arena: &mut BytesMut, id: HubId) -> Bytes {
    arena.put_u8(RECORD_VERSION);
    arena.put_u32(id.0);
    arena.split().freeze()
}

pub(crate) fn decode_hub(value: &[u8], place: impl FnOnce() -> String) -> Result<HubId, Error> {
    match value {
        [RECORD_VERSION, id @ ..] => id.try_into().ok(),
        _ => None,
    }
    .map(|id| HubId(u32::from_be_bytes(id)))
    .ok_or_else(|| Error::corrupt(place(), format!("no hub: {}", hex(value))))
}

pub(crate) fn decode_u64(value: &[u8], place: impl FnOnce() -> String) -> Result<u64, Error> {
    match value.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(Error::corrupt(
            place(),
            format!("no number: {}", hex(value)),
        )),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
