//! Sizes, durations and times as people write them.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// Factor of each unit of size. Units of 1,024 are spelled with an `i`, as on disks and in containers.
const SIZES: [(&str, u64); 9] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Milliseconds of each unit of duration.
const PERIODS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a size in bytes, such as `67108864`, `64MiB` or `64 MB`; letter case is ignored.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_number(text.trim());
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor = SIZES.iter().find(|(name, _)| *name == unit);
    let size = match (number.parse::<u64>(), factor) {
        (Ok(number), Some((_, factor))) => number.checked_mul(*factor),
        _ => None,
    };
    size.and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| "expected a size such as 1048576, 64MiB or 2GB".to_owned())
}

/// Reads a duration of one or more parts, such as `30d`, `1h30m` or `250ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    let mut total: Option<u64> = None;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        total = part_ms(number, unit).and_then(|part| total.unwrap_or(0).checked_add(part));
        if total.is_none() {
            break;
        }
        rest = next.trim_start();
    }
    total
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a duration such as 30d, 1h30m, 10s or 250ms".to_owned())
}

fn part_ms(number: &str, unit: &str) -> Option<u64> {
    let (_, factor) = PERIODS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Reads a point in time in RFC 3339, such as `2030-01-31T12:00:00Z`, or a day.
pub fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_str(text.trim()).map_err(|_| {
        "expected a time such as 2030-01-31T12:00:00Z, 2030-01-31T12:00:00+02:00 or 2030-01-31"
            .to_owned()
    })
}

/// The point in time that lies `delay` from now.
pub fn from_now(delay: Duration) -> Result<Timestamp, String> {
    SystemTime::now()
        .checked_add(delay)
        .map(Timestamp::from)
        .ok_or_else(|| "the delay reaches beyond the calendar".to_owned())
}

/// Reads `KEY=VALUE`.
pub fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases = [
            ("1048576", 1 << 20),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1GiB", 1 << 30),
            ("2kb", 2_000),
            ("7B", 7),
            (" 0 ", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "MiB", "-1", "1.5GiB", "64 parsecs", "99999999999999TiB"] {
            assert!(bytes(text).unwrap_err().contains("64MiB"), "{text}");
        }
    }

    #[test]
    fn durations_are_sums_of_their_parts() {
        let cases = [
            ("30d", 30 * 86_400_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("10s", 10_000),
            ("250ms", 250),
            ("0s", 0),
            ("2w", 14 * 86_400_000),
        ];
        for (text, expected) in cases {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(expected)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in [
            "",
            "30",
            "d",
            "5 years",
            "-1s",
            "1h30",
            "99999999999999999w",
        ] {
            assert!(duration(text).unwrap_err().contains("30d"), "{text}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        let time_of = |text| time(text).unwrap().to_string();
        assert_eq!(time_of("2030-01-31T12:00:00Z"), "2030-01-31T12:00:00Z");
        assert_eq!(time_of("2030-01-31T12:00:00+02:00"), "2030-01-31T10:00:00Z");
        assert_eq!(time_of("2030-01-31"), "2030-01-31T00:00:00Z");
        assert!(time("tomorrow").is_err());
    }

    #[test]
    fn a_tag_may_hold_equal_signs_in_its_value_but_needs_a_key() {
        assert_eq!(tag("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(tag("a="), Ok(("a".to_owned(), String::new())));
        assert!(tag("=b").is_err());
        assert!(tag("a").is_err());
    }
}
