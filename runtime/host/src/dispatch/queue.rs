//! Items that wait for a stream, grouped by what a filter can tell apart, so that an item nobody may take holds up no other (S-13.12).

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use mainspring_core::id::InstanceId;

/// How large an item is, as far as channels differ in what they receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Size {
    /// Every channel receives it.
    Ordinary,
    /// It fits once the history is streamed apart (S-13.20).
    Streamable,
    /// Only channels without a limit receive it.
    Unlimited,
}

/// What decides which streams may take an item. Names and versions are lower-case (S-13.11); an unset version is "".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) size: Size,
    /// An entity whose key holds '@': Python's workers cannot read its id, and give it back (S-12.1).
    pub(crate) is_awkward: bool,
}

impl Class {
    pub(crate) fn new(name: &str, version: Option<&str>, size: Size) -> Self {
        Self {
            name: name.to_lowercase(),
            version: version.unwrap_or_default().to_ascii_lowercase(),
            size,
            is_awkward: false,
        }
    }

    /// The class of an entity.
    pub(crate) fn of_entity(entity: &InstanceId, size: Size) -> Self {
        let (name, key) = entity.entity_parts();
        Self {
            is_awkward: key.contains('@'),
            ..Self::new(name, None, size)
        }
    }
}

/// An item, and since when it waits.
pub(crate) struct Ready<T> {
    pub(crate) item: T,
    pub(crate) since: Instant,
}

/// First in, first out within what a stream may take. An item is in it once at most.
pub(crate) struct Queue<T> {
    /// Items of each class by order of readiness over all classes.
    classes: HashMap<Arc<Class>, BTreeMap<u64, Ready<T>>>,
    places: HashMap<T, (Arc<Class>, u64)>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            classes: HashMap::new(),
            places: HashMap::new(),
            next: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// Puts an item at the end. One that waits already keeps its place, or moves to the end of its new class.
    pub(crate) fn push(&mut self, class: Class, item: T) {
        if self.class_of(&item) == Some(&class) {
            return;
        }
        self.remove(&item);
        let class = match self.classes.get_key_value(&class) {
            Some((class, _)) => Arc::clone(class),
            None => Arc::new(class),
        };
        let place = (Arc::clone(&class), self.next);
        self.places.insert(item.clone(), place);
        let since = Instant::now();
        self.classes
            .entry(class)
            .or_default()
            .insert(self.next, Ready { item, since });
        self.next += 1;
    }

    pub(crate) fn class_of(&self, item: &T) -> Option<&Class> {
        self.places.get(item).map(|(class, _)| &**class)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Since when the item waits that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let first = |waiting: &BTreeMap<u64, Ready<T>>| Some(waiting.first_key_value()?.1.since);
        self.classes.values().filter_map(first).min()
    }

    /// What waits here, each class once.
    pub(crate) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.keys().map(|class| &**class)
    }

    /// Takes out one item, if it waits.
    pub(crate) fn remove(&mut self, item: &T) {
        if let Some((class, sequence)) = self.places.remove(item) {
            self.take(&class, sequence);
        }
    }

    /// Takes the item that has been ready longest among the classes that `matches`.
    pub(crate) fn pop(&mut self, matches: impl Fn(&Class) -> bool) -> Option<Ready<T>> {
        let (sequence, class) = self
            .classes
            .iter()
            .filter(|(class, _)| matches(class))
            .filter_map(|(class, waiting)| Some((*waiting.first_key_value()?.0, class)))
            .min_by_key(|(sequence, _)| *sequence)?;
        let class = Arc::clone(class);
        let ready = self.take(&class, sequence)?;
        self.places.remove(&ready.item);
        Some(ready)
    }

    fn take(&mut self, class: &Arc<Class>, sequence: u64) -> Option<Ready<T>> {
        let waiting = self.classes.get_mut(class)?;
        let item = waiting.remove(&sequence);
        if waiting.is_empty() {
            self.classes.remove(class);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> Class {
        Class::new(name, None, Size::Ordinary)
    }

    fn pop(queue: &mut Queue<i32>, matches: impl Fn(&Class) -> bool) -> Option<i32> {
        queue.pop(matches).map(|ready| ready.item)
    }

    #[test]
    fn items_leave_in_order_of_readiness_over_all_classes() {
        // S-13.15
        let mut queue = Queue::default();
        queue.push(class("a"), 1);
        queue.push(class("b"), 2);
        queue.push(class("a"), 3);
        let taken: Vec<_> = std::iter::from_fn(|| pop(&mut queue, |_| true)).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert!(queue.classes.is_empty() && queue.places.is_empty());
    }

    #[test]
    fn an_item_without_a_matching_stream_holds_up_no_other() {
        // S-13.12
        let mut queue = Queue::default();
        queue.push(class("nobody"), 1);
        queue.push(class("b"), 2);
        assert_eq!(pop(&mut queue, |c| c.name == "b"), Some(2));
        assert_eq!(pop(&mut queue, |c| c.name == "b"), None);
        assert!(!queue.classes.is_empty());
    }

    #[test]
    fn an_item_is_in_it_once_and_moves_with_its_class() {
        // S-13.12: an id that is used again under another name waits under that name.
        let mut queue = Queue::default();
        queue.push(class("a"), 1);
        queue.push(class("a"), 2);
        queue.push(class("a"), 1);
        queue.push(class("b"), 2);
        assert_eq!(pop(&mut queue, |c| c.name == "a"), Some(1));
        assert_eq!(pop(&mut queue, |c| c.name == "a"), None);
        assert_eq!(pop(&mut queue, |c| c.name == "b"), Some(2));
        assert!(queue.classes.is_empty() && queue.places.is_empty());
    }

    #[test]
    fn what_was_withdrawn_leaves_nothing_behind() {
        let mut queue = Queue::default();
        queue.push(class("a"), 1);
        queue.push(class("a"), 2);
        queue.remove(&1);
        queue.remove(&7);
        assert_eq!(pop(&mut queue, |_| true), Some(2));
        assert!(queue.classes.is_empty() && queue.places.is_empty());
    }

    #[test]
    fn names_and_versions_match_without_regard_to_case() {
        // S-13.11
        let of = |name, version| Class::new(name, version, Size::Ordinary);
        assert_eq!(of("Order", Some("V1")), of("oRDER", Some("v1")));
        assert_eq!(of("order", None), of("order", Some("")));
    }
}
