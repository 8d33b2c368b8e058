//! Warm state in the cache: taken once, weighed, and dropped when there is no room.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use mainspring_core::id::InstanceId;
use mainspring_core::orchestration::{Orchestration, Status};
use mainspring_store::Cache;

#[path = "fixtures/content.rs"]
mod content;

use content::{at, of, record};

fn warm(instance: &str) -> Arc<Orchestration> {
    let record = record(Status::Running, at(0));
    let id = InstanceId::from_stored(instance);
    Arc::new(Orchestration::restore(id, record, content::start(), &[content::chunk()]).unwrap())
}

#[test]
fn warm_state_is_taken_once() {
    let cache = Cache::new(1 << 20);
    cache.put_warm(of("a"), warm("a"), 1_000);
    assert!(cache.usage_bytes() >= 1_000);
    assert_eq!(cache.take_warm(&of("b")), None);
    assert_eq!(cache.take_warm(&of("a")), Some(warm("a")));
    assert_eq!(cache.take_warm(&of("a")), None);
    assert_eq!(cache.usage_bytes(), 0);
}

#[test]
fn warm_state_and_history_share_one_ceiling() {
    let cache = Cache::new(64 << 10);
    for number in 0..100 {
        let name = number.to_string();
        cache.put_warm(of(&name), warm(&name), 4_000);
        cache.put_history(&of(&name), 2, 0, content::chunk());
        assert!(cache.usage_bytes() <= 64 << 10);
    }
    let left = (0..100)
        .filter(|number| cache.take_warm(&of(&number.to_string())).is_some())
        .count();
    assert!((1..17).contains(&left), "{left}");
}
