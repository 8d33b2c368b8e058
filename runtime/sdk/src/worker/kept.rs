//! Orchestrations kept in memory between two episodes: as many as allowed, those that rested longest put away first.

use std::collections::{BTreeMap, HashMap};

use crate::replay::Instance;

struct Entry {
    execution: String,
    instance: Instance,
    rested_at: u64,
}

/// Instances by id, with an order of rest.
pub(crate) struct Kept {
    max: usize,
    entries: HashMap<String, Entry>,
    by_rest: BTreeMap<u64, String>,
    clock: u64,
}

impl Kept {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            entries: HashMap::new(),
            by_rest: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Takes one out, to run it. One of another generation is dropped.
    pub(crate) fn take(&mut self, id: &str, execution: &str) -> Option<Instance> {
        let entry = self.entries.remove(id)?;
        self.by_rest.remove(&entry.rested_at);
        (entry.execution == execution).then_some(entry.instance)
    }

    /// Puts one to rest.
    pub(crate) fn put(&mut self, id: String, execution: String, instance: Instance) {
        if self.max == 0 {
            return;
        }
        self.take(&id, "");
        if self.entries.len() >= self.max
            && let Some((_, longest)) = self.by_rest.pop_first()
        {
            self.entries.remove(&longest);
        }
        self.clock += 1;
        self.by_rest.insert(self.clock, id.clone());
        self.entries.insert(
            id,
            Entry {
                execution,
                instance,
                rested_at: self.clock,
            },
        );
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::convert::Payloads;
    use crate::registry::Registry;

    fn instance() -> Instance {
        Instance::new(Arc::new(Registry::default()), Payloads::default())
    }

    fn put(kept: &mut Kept, id: &str) {
        kept.put(id.to_owned(), "x".to_owned(), instance());
    }

    #[test]
    fn the_one_that_rested_longest_makes_way() {
        let mut kept = Kept::new(2);
        put(&mut kept, "a");
        put(&mut kept, "b");
        let a = kept.take("a", "x").expect("is kept");
        kept.put("a".to_owned(), "x".to_owned(), a);
        put(&mut kept, "c");
        assert_eq!(kept.len(), 2);
        assert!(kept.take("b", "x").is_none());
        assert!(kept.take("a", "x").is_some());
        assert!(kept.take("c", "x").is_some());
        assert_eq!(kept.len(), 0);
    }

    #[test]
    fn another_generation_is_not_the_same_instance() {
        let mut kept = Kept::new(2);
        put(&mut kept, "a");
        assert!(kept.take("a", "y").is_none());
        assert_eq!(kept.len(), 0);
    }

    #[test]
    fn a_bound_of_zero_keeps_nothing() {
        let mut kept = Kept::new(0);
        put(&mut kept, "a");
        assert_eq!(kept.len(), 0);
    }
}
