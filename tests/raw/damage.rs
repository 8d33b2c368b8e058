//! Damages encoded messages: as bytes, so that they no longer decode, and field by field, so that they still do.

use mainspring_tests::Chance;

/// Values at which arithmetic and enums go wrong.
const NUMBERS: [u64; 9] = [
    0,
    1,
    2,
    8,
    127,
    i32::MAX as u64,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX,
];

/// Texts that somebody might trust: empty, too long for an id, an entity's, hostile, of another alphabet.
const TEXTS: [&str; 7] = ["", "@c@a", "@", "a\u{0}b", "../../x", "\u{1f980}", "0"];

/// Damages a message in some way.
pub fn damage(chance: &mut Chance, message: &[u8]) -> Vec<u8> {
    match chance.below(8) {
        0 => {
            let length = chance.below(200);
            chance.bytes(length)
        }
        1 | 2 => damage_bytes(chance, message),
        _ => {
            let mut message = message.to_vec();
            for _ in 0..=chance.below(3) {
                message = damage_field(chance, &message);
            }
            message
        }
    }
}

fn damage_bytes(chance: &mut Chance, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len().max(1)).min(bytes.len());
        match chance.below(5) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            2 => {
                let length = chance.below(8);
                let noise = chance.bytes(length);
                bytes.splice(at..at, noise);
            }
            // The longest number there is, where a length may stand.
            3 => drop(bytes.splice(at..at, varint(u64::MAX))),
            _ => {
                let copy = bytes[at..].to_vec();
                bytes.extend(copy);
            }
        }
    }
    bytes
}

/// One field of a message: its number, and what it holds.
#[derive(Clone)]
enum Field {
    Number(u64, u64),
    Bytes(u64, Vec<u8>),
    /// Four or eight bytes, with their wire type.
    Fixed(u64, u64, Vec<u8>),
}

/// Drops, doubles, moves, changes or descends into one field. What does not read as a message gets a byte changed.
fn damage_field(chance: &mut Chance, message: &[u8]) -> Vec<u8> {
    let Some(mut fields) = read(message).filter(|fields| !fields.is_empty()) else {
        return damage_bytes(chance, message);
    };
    let at = chance.below(fields.len());
    match chance.below(10) {
        0 => drop(fields.remove(at)),
        1 => fields.push(fields[at].clone()),
        2 => chance.shuffle(&mut fields),
        3 => {
            // The same value under a number that means something else, or nothing.
            let number = 1 + chance.below(35) as u64;
            match &mut fields[at] {
                Field::Number(tag, _) | Field::Bytes(tag, _) | Field::Fixed(tag, _, _) => {
                    *tag = number
                }
            }
        }
        _ => match &mut fields[at] {
            Field::Number(_, value) => *value = *chance.pick(&NUMBERS),
            Field::Fixed(_, _, bytes) => *bytes = chance.bytes(bytes.len()),
            Field::Bytes(_, bytes) => match chance.below(4) {
                0 => *bytes = chance.pick(&TEXTS).as_bytes().to_vec(),
                1 => *bytes = vec![b'x'; 90 + chance.below(30)],
                _ => *bytes = damage_field(chance, bytes),
            },
        },
    }
    write(&fields)
}

fn read(mut message: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        let (number, wire_type) = (key >> 3, key & 7);
        fields.push(match wire_type {
            0 => Field::Number(number, read_varint(&mut message)?),
            1 => Field::Fixed(number, 1, split(&mut message, 8)?),
            2 => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                Field::Bytes(number, split(&mut message, length)?)
            }
            5 => Field::Fixed(number, 5, split(&mut message, 4)?),
            _ => return None,
        });
    }
    Some(fields)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn split(bytes: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head.to_vec())
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut message = Vec::new();
    for field in fields {
        match field {
            Field::Number(number, value) => {
                message.extend(varint(number << 3));
                message.extend(varint(*value));
            }
            Field::Bytes(number, bytes) => {
                message.extend(varint(number << 3 | 2));
                message.extend(varint(bytes.len() as u64));
                message.extend(bytes);
            }
            Field::Fixed(number, wire_type, bytes) => {
                message.extend(varint(number << 3 | wire_type));
                message.extend(bytes);
            }
        }
    }
    message
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
