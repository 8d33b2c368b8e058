//! Items that wait for a stream, grouped by what a filter can tell apart, so that an item nobody may take holds up no other (S-13.12).

use std::collections::{HashMap, VecDeque};

/// What decides which streams may take an item. Names and versions are lower-case (S-13.11); an unset version is "".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Larger than what an ordinary channel receives (S-13.20).
    pub(crate) is_oversize: bool,
}

impl Class {
    pub(crate) fn new(name: &str, version: Option<&str>, is_oversize: bool) -> Self {
        Self {
            name: name.to_lowercase(),
            version: version.unwrap_or_default().to_ascii_lowercase(),
            is_oversize,
        }
    }
}

struct Waiting<T> {
    /// Order of readiness over all classes.
    sequence: u64,
    item: T,
    /// The stream that gave the item back; another is preferred (S-13.17).
    avoid: Option<u64>,
}

/// First in, first out within what a stream may take.
pub(crate) struct Queue<T> {
    classes: HashMap<Class, VecDeque<Waiting<T>>>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            classes: HashMap::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, class: Class, item: T, avoid: Option<u64>) {
        let waiting = Waiting {
            sequence: self.next,
            item,
            avoid,
        };
        self.next += 1;
        self.classes.entry(class).or_default().push_back(waiting);
    }

    /// Takes the item that has been ready longest among the classes that `matches`. An item that avoids `stream` is taken by it only
    /// if `is_alone`: no other stream could have it.
    pub(crate) fn pop(
        &mut self,
        stream: u64,
        is_alone: bool,
        matches: impl Fn(&Class) -> bool,
    ) -> Option<T> {
        let class = self
            .classes
            .iter()
            .filter(|(class, _)| matches(class))
            .filter_map(|(class, waiting)| {
                let at = waiting
                    .iter()
                    .position(|w| is_alone || w.avoid != Some(stream))?;
                Some((waiting[at].sequence, at, class))
            })
            .min_by_key(|(sequence, ..)| *sequence)
            .map(|(_, at, class)| (at, class.clone()));
        let (at, class) = class?;
        let waiting = self.classes.get_mut(&class)?;
        let item = waiting.remove(at)?.item;
        if waiting.is_empty() {
            self.classes.remove(&class);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn class(name: &str) -> Class {
        Class::new(name, None, false)
    }

    #[test]
    fn items_leave_in_order_of_readiness_over_all_classes() {
        let mut queue = Queue::default();
        queue.push(class("a"), 1, None);
        queue.push(class("b"), 2, None);
        queue.push(class("a"), 3, None);
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop(1, true, |_| true)).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert!(queue.classes.is_empty());
    }

    #[test]
    fn an_item_without_a_matching_stream_holds_up_no_other() {
        // S-13.12
        let mut queue = Queue::default();
        queue.push(class("nobody"), 1, None);
        queue.push(class("b"), 2, None);
        assert_eq!(queue.pop(1, true, |c| c.name == "b"), Some(2));
        assert_eq!(queue.pop(1, true, |c| c.name == "b"), None);
        assert!(!queue.classes.is_empty());
    }

    #[test]
    fn an_item_given_back_prefers_another_stream() {
        // S-13.17
        let mut queue = Queue::default();
        queue.push(class("a"), 1, Some(7));
        assert_eq!(queue.pop(7, false, |_| true), None);
        assert_eq!(queue.pop(8, false, |_| true), Some(1));
        queue.push(class("a"), 2, Some(7));
        assert_eq!(queue.pop(7, true, |_| true), Some(2));
    }

    #[test]
    fn names_and_versions_match_without_regard_to_case() {
        // S-13.11
        assert_eq!(
            Class::new("Order", Some("V1"), false),
            Class::new("oRDER", Some("v1"), false)
        );
        assert_eq!(
            Class::new("order", None, false),
            Class::new("order", Some(""), false)
        );
    }
}
