//! Random histories of calls, signals and critical sections, with kill -9 and lost workers in between.
//!
//! Orchestrations wander from entity to entity, clients signal and look, and some orchestrations are terminated wherever
//! they are. Each round ends with the server killed, the worker's connection cut, or both; nobody waits for anything to
//! calm down. In the end the entities' own lists have to agree with everything that anybody saw on the way, which
//! [`verdict`](crate::verdict) decides.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainspring_proto::{
    CreateInstanceRequest, GetEntityRequest, OrchestrationIdReusePolicy, OrchestrationStatus,
    SignalEntityRequest, TerminateRequest,
};
use mainspring_tests::entity::guid;
use mainspring_tests::{Chance, Crew, Peer, Scheduler, check_history};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Code;

use crate::hands::store_is_sound;
use crate::insistent::Insistent;
use crate::journal::{ENTITIES, Journal, Kind, spawned_id};
use crate::verdict::{Lists, judge, missing};
use crate::wander::{List, Wandering};

const SEED: u64 = 12;

/// Every sixth round ends with a lost worker alone; the others kill the server.
const ROUNDS: usize = 60;

/// Orchestrations that are started in each round.
const STARTS: usize = 5;

const CLIENTS: usize = 2;

/// Longest time between the last restart and the end of everything.
const FINISH_LIMIT: Duration = Duration::from_secs(90);

/// What all clients share.
struct Load {
    address: String,
    journal: Arc<Journal>,
    /// Orchestrations that may be started still.
    starts: Semaphore,
    started: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// One client, who does one thing after the other.
struct Client {
    name: String,
    load: Arc<Load>,
    insistent: Insistent,
    chance: Chance,
    labels: usize,
}

impl Client {
    fn new(number: usize, load: &Arc<Load>, seed: u64) -> Self {
        Self {
            name: format!("c{number}"),
            insistent: Insistent::new(&load.address),
            load: Arc::clone(load),
            chance: Chance::seeded(seed),
            labels: 0,
        }
    }

    async fn run(mut self) {
        while !self.load.is_over.load(Ordering::Relaxed) {
            let entity = self.chance.below(ENTITIES.len());
            match self.chance.below(8) {
                0..=3 => self.start().await,
                4 | 5 => self.signal(entity).await,
                6 => self.look(entity).await,
                _ => {
                    let pause = self.chance.below(15) as u64;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    fn label(&mut self) -> String {
        self.labels += 1;
        format!("{}.0.{}", self.name, self.labels)
    }

    /// Starts an orchestration, and terminates one in six.
    async fn start(&mut self) {
        let Ok(permit) = self.load.starts.try_acquire() else {
            return tokio::time::sleep(Duration::from_millis(5)).await;
        };
        permit.forget();
        self.labels += 1;
        let id = format!("{}-o{}", self.name, self.labels);
        let request = CreateInstanceRequest {
            name: "wander".to_owned(),
            instance_id: id.clone(),
            input: Some(format!("{} 0", self.chance.number() >> 24)),
            // The start may be asked for again when the orchestration has ended long ago.
            orchestration_id_reuse_policy: Some(OrchestrationIdReusePolicy::default()),
            ..Default::default()
        };
        let start = |mut client: mainspring_tests::Client| {
            let request = request.clone();
            async move { client.start_instance(request).await }
        };
        match self.insistent.ask(start).await {
            Err(status) if status.code() != Code::AlreadyExists => panic!("start {id}: {status}"),
            _ => {}
        }
        self.load
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.clone());
        if self.chance.below(6) == 0 {
            let pause = self.chance.below(60) as u64;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let request = TerminateRequest {
                instance_id: id.clone(),
                ..Default::default()
            };
            let terminate = |mut client: mainspring_tests::Client| {
                let request = request.clone();
                async move { client.terminate_instance(request).await }
            };
            self.insistent
                .ask(terminate)
                .await
                .unwrap_or_else(|status| panic!("terminate {id}: {status}"));
        }
    }

    /// Signals, again and again with the same request id until it is acknowledged (S-12.37).
    async fn signal(&mut self, entity: usize) {
        let label = self.label();
        let target = self.chance.below(ENTITIES.len());
        let (operation, kind, input) = if self.chance.below(4) == 0 {
            let input = format!("{label} {}", ENTITIES[target]);
            ("relay", Kind::Relay(target), input)
        } else {
            ("add", Kind::Plain, label.clone())
        };
        let request = SignalEntityRequest {
            instance_id: ENTITIES[entity].to_owned(),
            name: operation.to_owned(),
            input: Some(input),
            request_id: guid(u128::from(self.chance.number()) << 64),
            ..Default::default()
        };
        self.load.journal.ask(&label, entity, kind, None);
        let signal = |mut client: mainspring_tests::Client| {
            let request = request.clone();
            async move { client.signal_entity(request).await }
        };
        self.insistent
            .ask(signal)
            .await
            .unwrap_or_else(|status| panic!("signal {label}: {status}"));
    }

    async fn look(&mut self, entity: usize) {
        let label = self.label();
        let request = GetEntityRequest {
            instance_id: ENTITIES[entity].to_owned(),
            include_state: true,
        };
        self.load.journal.look(&label, entity);
        let get = |mut client: mainspring_tests::Client| {
            let request = request.clone();
            async move { client.get_entity(request).await }
        };
        let response = self
            .insistent
            .ask(get)
            .await
            .unwrap_or_else(|status| panic!("get {label}: {status}"));
        let state = response.entity.and_then(|entity| entity.serialized_state);
        let list = List::read(state.as_deref());
        self.load.journal.saw(&label, list.length, &list.last);
    }
}

/// All lists, and how many operations wait at the entities.
async fn lists(peer: &Peer) -> (Lists, i32) {
    let (mut lists, mut waiting) = (Lists::new(), 0);
    for entity in ENTITIES {
        let found = peer.find_entity(entity).await;
        let found = found.unwrap_or_else(|| panic!("{entity} does not exist"));
        waiting += found.backlog_queue_size;
        lists.push(List::read(found.serialized_state.as_deref()).labels());
    }
    (lists, waiting)
}

/// Waits for the end of all these orchestrations and returns those that were terminated.
async fn ended(peer: &Peer, crew: &Crew, ids: &[String], deadline: Instant) -> HashSet<String> {
    let mut terminated = HashSet::new();
    for id in ids {
        loop {
            crew.check();
            match peer.get(id).await.orchestration_status() {
                OrchestrationStatus::Completed => break,
                OrchestrationStatus::Terminated => {
                    terminated.insert(id.clone());
                    break;
                }
                status => assert!(
                    Instant::now() < deadline,
                    "{id} is {status:?}: {:#?}\n{:#?}",
                    peer.history(id).await,
                    peer.query_entities(everything()).await
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        check_history(id, &peer.history(id).await, true);
    }
    terminated
}

/// All entities, with whatever is at them.
fn everything() -> mainspring_proto::EntityQuery {
    mainspring_proto::EntityQuery {
        include_transient: true,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_stay_linearizable_through_fifty_crashes() {
    let mut chance = Chance::new(SEED);
    let mut scheduler = Scheduler::start(&["--lease-grace", "300ms"]);
    let journal = Arc::new(Journal::default());
    let conduct = Wandering::new(Arc::clone(&journal), Chance::seeded(chance.number()));
    let crew = Crew::start(
        scheduler.address(),
        Arc::new(conduct),
        Chance::seeded(chance.number()),
    );
    let load = Arc::new(Load {
        address: scheduler.address().to_owned(),
        journal: Arc::clone(&journal),
        starts: Semaphore::new(0),
        started: Mutex::new(Vec::new()),
        is_over: AtomicBool::new(false),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(Client::new(number, &load, chance.number()).run()))
        .collect();
    let mut kills = 0;
    for round in 0..ROUNDS {
        load.starts.add_permits(STARTS);
        if chance.below(5) > 0 {
            let mut witness = Insistent::new(scheduler.address());
            let hello =
                |mut client: mainspring_tests::Client| async move { client.hello(()).await };
            witness.ask(hello).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(chance.below(250) as u64)).await;
        crew.check();
        if round % 6 == 5 || chance.below(6) == 0 {
            crew.sever();
        }
        if round % 6 != 5 {
            kills += 1;
            tokio::task::block_in_place(|| {
                scheduler.kill();
                scheduler.restart();
            });
        }
    }
    assert!(kills >= 50, "{kills} crashes");
    load.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    let peer = Peer::connect(&scheduler).await;
    let deadline = Instant::now() + FINISH_LIMIT;
    let started = load.started.lock().unwrap().clone();
    let terminated = ended(&peer, &crew, &started, deadline).await;
    let lists = loop {
        let (lists, waiting) = lists(&peer).await;
        let missing = missing(&journal.notes(), &lists, &terminated);
        if (waiting == 0 && missing.is_empty()) || Instant::now() > deadline {
            break lists;
        }
        crew.check();
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let spawned: Vec<String> = lists
        .iter()
        .flatten()
        .filter(|label| {
            let notes = journal.notes();
            let asked = notes.asked.get(*label);
            asked.is_some_and(|asked| matches!(asked.kind, Kind::Spawn(_)))
        })
        .map(|label| spawned_id(label))
        .collect();
    let unfinished = ended(&peer, &crew, &spawned, deadline).await;
    assert!(unfinished.is_empty(), "{unfinished:?}");

    let broken = judge(&journal.notes(), &lists, &terminated);
    assert!(
        broken.is_empty(),
        "{} rules are broken, first of all:\n{}",
        broken.len(),
        broken[..broken.len().min(20)].join("\n")
    );
    for entity in ENTITIES {
        let found = peer.find_entity(entity).await.unwrap();
        assert_eq!(
            (found.locked_by, found.backlog_queue_size),
            (None, 0),
            "{entity}"
        );
    }
    let operations: usize = lists.iter().map(Vec::len).sum();
    println!(
        "{operations} operations of {} orchestrations, {} of them terminated, and {} started by entities, survived {kills} crashes",
        started.len(),
        terminated.len(),
        spawned.len()
    );
    assert!(
        started.len() > 2 * ROUNDS,
        "the load was too light to say anything: {} orchestrations",
        started.len()
    );
    store_is_sound(scheduler).await;
}
