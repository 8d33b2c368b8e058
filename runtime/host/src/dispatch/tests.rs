//! Which stream gets what; in the files below, what becomes of it there.
#![allow(clippy::unwrap_used)]

mod leases;
mod nameless;

use std::collections::VecDeque;
use std::time::Instant;

use futures_util::{FutureExt, StreamExt};
use mainspring_core::effect::ActivityTask;
use mainspring_core::id::{ExecutionId, InstanceId};
use mainspring_proto::WorkItem;
use mainspring_proto::work_item::Request;
use prost::Message;

use super::*;
use crate::activation::Outcome;
use crate::api::{Filter, Filters, Peer};

const HUB: HubId = HubId(1);
const PYTHON: &str = "grpc-python/1.66";
const JAVA: &str = "grpc-java-netty/1.60";
const GO: &str = "grpc-go/1.60";
const NODE: &str = "grpc-node-js/1.10";

/// A dispatcher whose instances are a list of what they were told.
struct Bench {
    dispatch: Arc<Dispatch>,
    told: Arc<Mutex<VecDeque<(InstanceKey, Input)>>>,
}

fn bench_with(change: impl FnOnce(&mut HostConfig)) -> Bench {
    let mut config = HostConfig {
        lease_grace: Duration::from_millis(100),
        ..HostConfig::default()
    };
    change(&mut config);
    let dispatch = Dispatch::new(Handle::current(), &config, Arc::default());
    let told = Arc::new(Mutex::new(VecDeque::new()));
    let list = Arc::clone(&told);
    dispatch.connect(move |key, input| list.lock().unwrap().push_back((key, input)));
    Bench { dispatch, told }
}

fn bench() -> Bench {
    bench_with(|_| {})
}

impl Bench {
    fn open(&self, options: StreamOptions) -> WorkItems {
        let ping = Duration::from_secs(60);
        let mut items = self.dispatch.open_stream(HUB, options, ping).unwrap();
        assert!(matches!(
            take(&mut items).unwrap().request,
            Some(Request::HealthPing(_))
        ));
        items
    }

    fn schedule(&self, task: ActivityTask) {
        self.dispatch.schedule(key("i"), task, false);
    }

    fn told(&self) -> Option<(InstanceKey, Input)> {
        self.told.lock().unwrap().pop_front()
    }

    /// Hands an episode of `name` to whatever stream has room.
    fn hand_out(&self, instance: &str) -> Option<(StreamId, Token)> {
        let granted = self
            .dispatch
            .offer(&key(instance), &class("O"), None, None)?;
        Some((granted.stream, self.lease(instance, granted)))
    }

    fn lease(&self, instance: &str, granted: Granted) -> Token {
        let token = Token::fresh();
        let item = Outgoing::whole(mainspring_core::wire::health_ping());
        assert!(self.dispatch.lease(&key(instance), token, granted, item));
        token
    }

    fn answer(&self, token: &str) -> bool {
        self.dispatch.take_activity(HUB, "i", -7, token).is_some()
    }

    fn answer_named(&self, task_id: i32) -> Option<ExecutionId> {
        let answered = self.dispatch.take_activity(HUB, "i", task_id, "")?;
        Some(answered.fence().execution_id.clone())
    }
}

fn key(instance: &str) -> InstanceKey {
    InstanceKey {
        hub: HUB,
        instance: InstanceId::from_stored(instance),
    }
}

fn class(name: &str) -> Class {
    Class::new(name, None, Size::Ordinary)
}

fn from(user_agent: &str, connection: u64) -> StreamOptions {
    StreamOptions {
        peer: Peer {
            connection,
            user_agent: user_agent.to_owned(),
        },
        orchestrations_max: 0,
        activities_max: 0,
        entities_max: 0,
        can_stream_history: false,
        keeps_instances: false,
        filters: None,
        worker: String::new(),
    }
}

fn filtered(activities: &[(&str, &[&str])]) -> StreamOptions {
    let activities = activities
        .iter()
        .map(|(name, versions)| Filter {
            name: (*name).to_owned(),
            versions: versions.iter().map(|v| (*v).to_owned()).collect(),
        })
        .collect();
    StreamOptions {
        filters: Some(Filters {
            activities,
            ..Filters::default()
        }),
        ..from(PYTHON, 1)
    }
}

fn task(generation: &str, task_id: i32, name: &str) -> ActivityTask {
    ActivityTask {
        fence: Fence {
            execution_id: ExecutionId::from_stored(generation),
            scheduling: task_id as u32,
        },
        task_id,
        name: name.to_owned(),
        version: None,
        input: None,
        tags: BTreeMap::new(),
        trace: None,
        orchestration_version: None,
    }
}

fn decode(item: Outgoing) -> WorkItem {
    WorkItem::decode(item.parts.concat().as_slice()).unwrap()
}

/// What the stream has to give now.
fn take(items: &mut WorkItems) -> Option<WorkItem> {
    items
        .next()
        .now_or_never()
        .map(|item| decode(item.unwrap().unwrap()))
}

/// The next activity on the stream: name, task id and token.
fn activity(items: &mut WorkItems) -> Option<(String, i32, String)> {
    let item = take(items)?;
    match item.request {
        Some(Request::ActivityRequest(request)) => {
            Some((request.name, request.task_id, item.completion_token))
        }
        other => panic!("not an activity: {other:?}"),
    }
}

async fn activity_later(items: &mut WorkItems) -> (String, i32, String) {
    let next = tokio::time::timeout(Duration::from_secs(10), items.next());
    let item = decode(next.await.expect("it comes in time").unwrap().unwrap());
    match item.request {
        Some(Request::ActivityRequest(request)) => {
            (request.name, request.task_id, item.completion_token)
        }
        other => panic!("not an activity: {other:?}"),
    }
}

fn names(items: &mut WorkItems) -> Vec<String> {
    std::iter::from_fn(|| activity(items))
        .map(|(name, ..)| name)
        .collect()
}

async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "it never came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// S-13.9, S-13.12, S-13.13.
#[tokio::test]
async fn a_filter_lets_through_what_it_lists_and_the_rest_waits_for_another_stream() {
    let bench = bench();
    let mut picky = bench.open(filtered(&[("Pay", &[])]));
    for (id, name) in [(1, "Ship"), (2, "pAY"), (3, "Ship")] {
        bench.schedule(task("g", id, name));
    }
    assert_eq!(names(&mut picky), ["pAY"]);
    assert!(
        bench
            .dispatch
            .offer(&key("o"), &class("O"), None, None)
            .is_none(),
        "a kind without entries gets nothing"
    );
    drop(picky);
    let mut open = bench.open(from(PYTHON, 2));
    assert_eq!(names(&mut open), ["Ship", "Ship"]);
    assert!(matches!(bench.told(), Some((k, Input::Granted(_))) if k == key("o")));
}

/// S-13.11.
#[tokio::test]
async fn activities_without_a_version_match_by_that_of_their_orchestration() {
    let bench = bench();
    let of = |id, version: Option<&str>, orchestration: Option<&str>| ActivityTask {
        version: version.map(str::to_owned),
        orchestration_version: orchestration.map(str::to_owned),
        ..task("g", id, "Pay")
    };
    bench.schedule(of(1, None, Some("2.0-A")));
    bench.schedule(of(2, Some(""), Some("2.0-a")));
    bench.schedule(of(3, Some("1"), Some("2.0-a")));
    bench.schedule(of(4, None, None));
    let ids = |items: &mut WorkItems| -> Vec<i32> {
        std::iter::from_fn(|| activity(items))
            .map(|(_, id, _)| id)
            .collect()
    };
    assert_eq!(
        ids(&mut bench.open(filtered(&[("pay", &["2.0-a"])]))),
        [1, 2]
    );
    assert_eq!(ids(&mut bench.open(filtered(&[("pay", &[""])]))), [4]);
    assert_eq!(ids(&mut bench.open(filtered(&[("pay", &["1"])]))), [3]);
}

/// S-13.6, S-13.7, S-13.16.
#[tokio::test]
async fn a_stream_holds_as_many_items_as_it_states_or_as_is_usual() {
    let bench = bench();
    for id in 0..300 {
        bench.schedule(task("g", id, "A"));
    }
    let stated = StreamOptions {
        activities_max: 3,
        ..from(PYTHON, 1)
    };
    let mut three = bench.open(stated);
    let mut java = bench.open(from(JAVA, 2));
    let mut python = bench.open(from(PYTHON, 3));
    let first = activity(&mut three).unwrap();
    assert_eq!(names(&mut three).len(), 2);
    assert_eq!(names(&mut java).len(), 8);
    assert_eq!(names(&mut python).len(), 100);
    assert!(bench.answer(&first.2));
    assert_eq!(names(&mut three).len(), 1, "one answer makes room for one");
}

/// S-13.15.
#[tokio::test]
async fn items_are_spread_evenly_over_streams_and_kinds_do_not_starve_each_other() {
    let bench = bench();
    let ten = || StreamOptions {
        orchestrations_max: 1,
        activities_max: 10,
        ..from(PYTHON, 1)
    };
    let (mut a, mut b) = (bench.open(ten()), bench.open(ten()));
    for id in 0..10 {
        bench.schedule(task("g", id, "A"));
    }
    assert_eq!((names(&mut a).len(), names(&mut b).len()), (5, 5));
    for id in 10..100 {
        bench.schedule(task("g", id, "A"));
    }
    assert!(bench.hand_out("o1").is_some() && bench.hand_out("o2").is_some());
    assert!(bench.hand_out("o3").is_none());
}

/// S-13.26: room made by any answer is used at once, also by an orchestration that waited.
#[tokio::test]
async fn a_waiting_orchestration_is_granted_the_place_that_another_leaves() {
    let bench = bench();
    let one = StreamOptions {
        orchestrations_max: 1,
        ..from(PYTHON, 1)
    };
    let _items = bench.open(one);
    let (_, token) = bench.hand_out("a").unwrap();
    assert!(bench.hand_out("b").is_none());
    assert_eq!(bench.dispatch.waits_as(&key("b")), Some(class("O")));
    bench.dispatch.answered(token);
    assert!(matches!(bench.told(), Some((k, Input::Granted(_))) if k == key("b")));
}

#[tokio::test]
async fn an_orchestration_that_waits_under_another_name_is_not_given_away_under_the_old_one() {
    let bench = bench();
    assert!(bench.hand_out("a").is_none());
    let offered = bench.dispatch.offer(&key("a"), &class("Other"), None, None);
    assert!(offered.is_none());
    let only = |name: &str| StreamOptions {
        filters: Some(Filters {
            orchestrations: vec![Filter {
                name: name.to_owned(),
                versions: Vec::new(),
            }],
            ..Filters::default()
        }),
        ..from(PYTHON, 1)
    };
    let _first = bench.open(only("O"));
    assert!(bench.told().is_none());
    let _second = bench.open(only("Other"));
    assert!(matches!(bench.told(), Some((_, Input::Granted(_)))));
    bench
        .dispatch
        .offer(&key("b"), &class("Nobody"), None, None);
    bench.dispatch.withdraw(&key("b"));
    assert_eq!(bench.dispatch.waits_as(&key("b")), None);
}

/// S-1.11, S-14.4.
#[tokio::test]
async fn an_activity_too_large_for_ordinary_channels_goes_to_others_only_or_fails() {
    let bench = bench_with(|config| {
        config.limits.work_item_bytes_max = 2_000;
        config.oversize_wait = Duration::from_millis(50);
    });
    let large = |id| ActivityTask {
        input: Some("x".repeat(2_000)),
        ..task("g", id, "A")
    };
    let mut python = bench.open(from(PYTHON, 1));
    bench.schedule(large(1));
    assert!(activity(&mut python).is_none());
    let (_, told) = until(|| bench.told()).await;
    let Input::ActivityDone {
        outcome, task_id, ..
    } = told
    else {
        panic!("the activity fails")
    };
    let Outcome::Failed(failure) = outcome else {
        panic!("the activity fails")
    };
    assert_eq!(task_id, 1);
    assert_eq!(failure.error_type_and_message().0, "PayloadTooLarge");
    let mut node = bench.open(from(NODE, 2));
    bench.schedule(large(2));
    assert_eq!(activity(&mut node).unwrap().1, 2);
    assert!(activity(&mut python).is_none());
}

/// S-5.7.
#[tokio::test]
async fn activities_of_an_ended_generation_are_dropped_unless_a_worker_has_them() {
    let bench = bench();
    let one = StreamOptions {
        activities_max: 1,
        ..from(PYTHON, 1)
    };
    let mut items = bench.open(one);
    bench.schedule(task("g", 1, "A"));
    bench.schedule(task("g", 2, "B"));
    bench.schedule(task("h", 1, "C"));
    let execution_id = ExecutionId::from_stored("g");
    bench.dispatch.drop_activities(&key("i"), &execution_id);
    let (name, _, token) = activity(&mut items).unwrap();
    assert_eq!(name, "A");
    assert!(bench.answer(&token));
    let (name, _, token) = activity(&mut items).unwrap();
    assert_eq!(name, "C");
    assert_eq!(bench.dispatch.purge_activities(&key("i")).len(), 1);
    assert!(!bench.answer(&token));
    let state = bench.dispatch.lock();
    assert!(state.activities.is_empty() && state.tokens.is_empty());
    assert!(state.activity_ids.is_empty() && state.unnamed.is_empty());
}

/// S-19, CreateTaskHub.
#[tokio::test]
async fn streams_stay_subscribed_when_their_hub_begins_anew() {
    let bench = bench();
    let mut items = bench.open(from(PYTHON, 1));
    let (_, episode) = bench.hand_out("a").unwrap();
    take(&mut items);
    bench.schedule(task("g", 1, "A"));
    let (.., token) = activity(&mut items).unwrap();
    let new = HubId(2);
    bench.dispatch.replace_hub(HUB, Some(new));
    assert!(!bench.answer(&token));
    assert!(
        bench
            .dispatch
            .find(HUB, "a", &episode.to_string())
            .is_none()
    );
    let reborn = InstanceKey {
        hub: new,
        ..key("i")
    };
    bench.dispatch.schedule(reborn, task("g", 1, "B"), false);
    assert_eq!(names(&mut items), ["B"]);
    assert_eq!(bench.dispatch.lock().tokens.len(), 1);
    bench.dispatch.replace_hub(new, None);
    let ended = items.next().await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::NotFound);
}

/// S-1.14, S-13.2, S-13.3.
#[tokio::test]
async fn a_stream_pings_when_there_is_nothing_else_and_never_ends_without_an_error() {
    let bench = bench();
    let ping = Duration::from_millis(20);
    let options = from(PYTHON, 1);
    let mut items = bench.dispatch.open_stream(HUB, options, ping).unwrap();
    let since = Instant::now();
    for _ in 0..3 {
        let item = decode(items.next().await.unwrap().unwrap());
        assert!(matches!(item.request, Some(Request::HealthPing(_))));
        assert!(item.completion_token.is_empty());
    }
    assert!(since.elapsed() >= Duration::from_millis(40));
    bench.dispatch.stop();
    let ended = items.next().await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Unavailable);
    let refused = bench.dispatch.open_stream(HUB, from(PYTHON, 1), ping);
    assert!(refused.is_err_and(|e| e.kind() == ErrorKind::Unavailable));
}
