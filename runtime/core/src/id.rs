//! Names: instances, generations, hubs, partitions, and the order of messages.
//!
//! Ids are checked where they enter ([`InstanceId::parse`]) and trusted from then on. Nothing
//! here draws a random number: fresh ones come from a [`FreshIds`] that the caller hands in.

use std::fmt;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest instance id, in characters. Clients test for this very limit (S-10.1, S-14.1).
pub const INSTANCE_ID_CHARS_MAX: usize = 100;

/// How much of a refused id an error message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 40;

/// What is wrong with an instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// No id at all.
    #[error("instance id is empty")]
    Empty,
    /// More than [`INSTANCE_ID_CHARS_MAX`] characters.
    #[error(
        "instance id '{shown}' has {chars} characters, the limit is {INSTANCE_ID_CHARS_MAX} characters"
    )]
    TooLong {
        /// Its length in characters.
        chars: usize,
        /// Its beginning.
        shown: String,
    },
    /// It starts with '@', as the ids of entities do.
    #[error("instance id '{shown}' starts with '@', which is reserved for entities")]
    Entity {
        /// Its beginning.
        shown: String,
    },
    /// It is to be an entity's and does not have the form of one.
    #[error("entity id '{shown}' is not '@name@key' with a name")]
    NotEntity {
        /// Its beginning.
        shown: String,
    },
    /// It holds a control character.
    #[error("instance id '{shown}' contains a control character")]
    Control {
        /// Its beginning, control characters escaped.
        shown: String,
    },
}

fn shown(id: &str) -> String {
    let mut shown: String = id
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if id.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

macro_rules! text_id {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes an id as it was stored, or as a peer's own record names it, without checking it.
            pub fn from_stored(id: &str) -> Self {
                Self(Arc::from(id))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor).map(Self)
            }
        }
    };
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Arc<str>, E> {
        Ok(Arc::from(text))
    }
}

text_id!(
    /// Names one orchestration or entity within a hub: 1 to [`INSTANCE_ID_CHARS_MAX`] characters, none of
    /// them a control character, the first '@' for entities alone (S-10.1, S-12.1). Case counts. Cheap to clone.
    InstanceId
);

text_id!(
    /// Names one generation of an instance. Opaque; 32 lower-case hex digits where the scheduler
    /// chose it (S-3.3). Cheap to clone.
    ExecutionId
);

impl InstanceId {
    /// Checks an id that came from outside.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        let chars = id.chars().count();
        if chars > INSTANCE_ID_CHARS_MAX {
            let shown = shown(id);
            return Err(InvalidId::TooLong { chars, shown });
        }
        if id.starts_with('@') {
            return Err(InvalidId::Entity { shown: shown(id) });
        }
        if id.chars().any(char::is_control) {
            return Err(InvalidId::Control { shown: shown(id) });
        }
        Ok(Self::from_stored(id))
    }

    /// Checks an entity's id that came from outside: '@', a name, '@', a key. The name may not be empty, the key may (S-12.1).
    /// Names are lower-cased: case does not count in them (S-12.2).
    pub fn parse_entity(id: &str) -> Result<Self, InvalidId> {
        let chars = id.chars().count();
        if chars > INSTANCE_ID_CHARS_MAX {
            let shown = shown(id);
            return Err(InvalidId::TooLong { chars, shown });
        }
        if id.chars().any(char::is_control) {
            return Err(InvalidId::Control { shown: shown(id) });
        }
        let parts = id.strip_prefix('@').and_then(|rest| rest.split_once('@'));
        match parts {
            Some((name, key)) if !name.is_empty() => {
                Ok(Self::from_stored(&format!("@{}@{key}", entity_name(name))))
            }
            _ => Err(InvalidId::NotEntity { shown: shown(id) }),
        }
    }

    /// Whether it is an entity's.
    pub fn is_entity(&self) -> bool {
        self.0.starts_with('@')
    }

    /// Name and key of an entity's id; of another id, the whole and nothing.
    pub fn entity_parts(&self) -> (&str, &str) {
        let rest = self.0.strip_prefix('@');
        rest.and_then(|rest| rest.split_once('@'))
            .unwrap_or((&self.0, ""))
    }
}

/// The name of an entity in the form in which it is stored: letter by letter in lower case (S-12.2).
pub fn entity_name(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).collect()
}

/// One incarnation of a task hub: a hub that is deleted and created again gets another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HubId(pub u32);

/// A slice of the key space, written by one owner at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

/// An instance, named across all hubs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// The hub that it lives in.
    pub hub: HubId,
    /// Its id within that hub.
    pub instance: InstanceId,
}

/// Place of a message in the order of all commits.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Number of the commit that brought it.
    pub commit: u64,
    /// Its place within that commit.
    pub index: u16,
}

/// Source of fresh random 128-bit numbers. The host draws them; a test counts.
pub trait FreshIds {
    /// A number that this source has never returned before.
    fn next(&mut self) -> u128;
}

/// A fresh generation's id: 32 lower-case hex digits without dashes (S-3.3).
pub fn execution_id(ids: &mut dyn FreshIds) -> ExecutionId {
    ExecutionId::from_stored(&format!("{:032x}", ids.next()))
}

/// An id for an instance whose creator named none: 32 lower-case hex digits (S-10.1).
pub fn instance_id(ids: &mut dyn FreshIds) -> InstanceId {
    InstanceId::from_stored(&format!("{:032x}", ids.next()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Counter(u128);
    impl FreshIds for Counter {
        fn next(&mut self) -> u128 {
            self.0 += 1;
            self.0
        }
    }

    /// S-10.1.
    #[test]
    fn ids_within_the_rules_are_taken_as_they_are() {
        for id in ["a", "Order 17/ä", "x@y", &"ä".repeat(INSTANCE_ID_CHARS_MAX)] {
            assert_eq!(InstanceId::parse(id).unwrap().as_str(), id);
        }
    }

    /// S-10.1: the message names the limit, for clients that look for it.
    #[test]
    fn an_id_over_the_limit_is_refused_naming_the_limit() {
        let error = InstanceId::parse(&"x".repeat(101)).unwrap_err();
        assert!(matches!(error, InvalidId::TooLong { chars: 101, .. }));
        let text = error.to_string();
        assert!(
            text.contains("100 characters") && text.contains("101"),
            "{text}"
        );
        assert!(text.len() < 150, "{text}");
    }

    /// S-10.1.
    #[test]
    fn empty_entity_and_control_ids_are_refused() {
        assert_eq!(InstanceId::parse("").unwrap_err(), InvalidId::Empty);
        assert!(matches!(
            InstanceId::parse("@counter@x").unwrap_err(),
            InvalidId::Entity { .. }
        ));
        let error = InstanceId::parse("a\nb").unwrap_err();
        assert_eq!(
            error.to_string(),
            "instance id 'a\\nb' contains a control character"
        );
    }

    /// S-12.1, S-12.2.
    #[test]
    fn entity_ids_have_a_name_without_case_and_any_key() {
        for (id, read) in [
            ("@Counter@A", "@counter@A"),
            ("@counter@", "@counter@"),
            ("@c@x@Y", "@c@x@Y"),
            ("@ÄÖ@Ü", "@äö@Ü"),
        ] {
            assert_eq!(InstanceId::parse_entity(id).unwrap().as_str(), read);
        }
        let id = InstanceId::parse_entity("@c@x@Y").unwrap();
        assert_eq!((id.is_entity(), id.entity_parts()), (true, ("c", "x@Y")));
        for id in ["", "counter", "@", "@counter", "@@key", "counter@key"] {
            let refused = InstanceId::parse_entity(id).unwrap_err();
            assert!(matches!(refused, InvalidId::NotEntity { .. }), "{id}");
        }
        let error = InstanceId::parse_entity(&format!("@c@{}", "x".repeat(98))).unwrap_err();
        assert!(error.to_string().contains("100 characters"));
        assert!(InstanceId::parse_entity("@c@\0").is_err());
    }

    /// S-3.3.
    #[test]
    fn fresh_ids_are_32_lower_case_hex_digits() {
        let mut ids = Counter(0xabcd);
        assert_eq!(
            execution_id(&mut ids).as_str(),
            "0000000000000000000000000000abce"
        );
        assert_eq!(
            instance_id(&mut ids).as_str(),
            "0000000000000000000000000000abcf"
        );
    }

    #[test]
    fn ids_are_stored_as_plain_text() {
        let id = InstanceId::parse("order-17").unwrap();
        let stored = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(stored, rmp_serde::to_vec("order-17").unwrap());
        assert_eq!(rmp_serde::from_slice::<InstanceId>(&stored).unwrap(), id);
        assert_eq!(
            rmp_serde::from_read::<_, InstanceId>(&stored[..]).unwrap(),
            id
        );
    }

    #[test]
    fn positions_sort_by_commit_and_then_by_index() {
        let at = |commit, index| Position { commit, index };
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 1));
    }
}
