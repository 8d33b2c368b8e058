//! Workers that keep instances in memory are sent no history that they know, and never less than what they don't.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mainspring_core::orchestration::Status;
use mainspring_host::{Purge, WorkKind};
use mainspring_proto as proto;

use crate::scene::*;

pub fn keeper(scene: &Scene) -> Worker {
    scene.worker_with("mainspring-rust/1", |options| {
        options.keeps_instances = true
    })
}

/// Kinds of the past events that an episode was sent with.
fn past(episode: &Episode) -> Vec<&'static str> {
    episode.request.past_events.iter().map(kind).collect()
}

fn response(episode: &Episode) -> proto::OrchestratorResponse {
    proto::OrchestratorResponse {
        instance_id: episode.id().to_owned(),
        completion_token: episode.token.clone(),
        ..Default::default()
    }
}

/// S-13.15: affinity never delays an item.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_goes_to_the_stream_that_keeps_it_and_whole_to_another_one_when_that_is_full() {
    let scene = scene().await;
    let one = |options: &mut mainspring_host::StreamOptions| {
        options.keeps_instances = true;
        options.orchestrations_max = 1;
    };
    let mut first = scene.worker_with("mainspring-rust/1", one);
    for id in ["a", "b"] {
        scene.start(id).await;
        let episode = first.episode().await;
        assert_eq!(episode.kept, 0);
        first.answer(&episode, vec![]).await;
    }
    let mut second = scene.worker_with("mainspring-rust/1", one);
    scene.raise("a", "one").await;
    let of_a = first.episode().await;
    assert_eq!((of_a.id(), of_a.kept, past(&of_a).len()), ("a", 2, 0));
    scene.raise("b", "one").await;
    let of_b = second.episode().await;
    assert_eq!((of_b.id(), of_b.kept, past(&of_b).len()), ("b", 0, 2));
    second.answer(&of_b, vec![]).await;
    first.answer(&of_a, vec![]).await;
    for _ in 0..3 {
        scene.raise("a", "more").await;
        scene.raise("b", "more").await;
        let (of_a, of_b) = (first.episode().await, second.episode().await);
        assert_eq!((of_a.id(), of_b.id()), ("a", "b"));
        assert!(of_a.kept > 2 && of_b.kept > 2);
        first.answer(&of_a, vec![]).await;
        second.answer(&of_b, vec![]).await;
    }
}

/// S-3.32: at once, though it is the first time that it is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_lost_an_instance_is_sent_all_of_it() {
    let scene = scene().await;
    let mut worker = keeper(&scene);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![]).await;
    // However often it happens, it never counts as an item given back.
    for round in 0..4 {
        scene.raise("a", "more").await;
        let short = worker.episode().await;
        assert_eq!(short.kept, 2 + 2 * round);
        let lost = proto::OrchestratorResponse {
            requires_history: true,
            ..response(&short)
        };
        let since = Instant::now();
        worker.respond(lost).await.unwrap();
        let whole = worker.episode().await;
        assert!(since.elapsed() < Duration::from_millis(900));
        assert_eq!(whole.kept, 0);
        assert_eq!(past(&whole).len(), short.kept as usize);
        assert_eq!(whole.raised(), ["more"]);
        worker.answer(&whole, vec![]).await;
    }
}

/// S-9.14: the marker is in the store and reaches no worker, so both would count differently.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_generation_is_always_sent_whole() {
    let scene = scene().await;
    let mut worker = keeper(&scene);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![task("Pay")]).await;
    let activity = worker.activity().await;
    let failed = worker.completing(&activity, Err(failure()));
    let episode = worker.episode().await;
    assert!(episode.kept > 0);
    worker.answer(&episode, vec![fail()]).await;
    failed.await.unwrap();
    scene.completed("a").await;
    within(scene.host.rewind(scene.hub, "a", None))
        .await
        .unwrap();
    let episode = worker.episode().await;
    assert_eq!(episode.kept, 0);
    worker.answer(&episode, vec![task("Pay")]).await;
    let activity = worker.activity().await;
    worker.complete_activity(&activity, "paid").await;
    let episode = worker.episode().await;
    assert_eq!(episode.kept, 0);
    assert!(!past(&episode).is_empty());
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}

/// What a worker believes of the instance: its generation, and kinds of events.
type Belief = (String, Vec<&'static str>);

/// Two workers, of which each believes whatever it last answered, and a client who meddles.
struct Play {
    scene: Scene,
    workers: Vec<Worker>,
    beliefs: HashMap<usize, Belief>,
    /// Who has to be sent the next episode, without its history.
    expected: Option<usize>,
    /// The current generation's history holds a marker that workers are not shown.
    is_rewound: bool,
    shortened: usize,
}

impl Play {
    async fn new() -> Self {
        let scene = scene_with(|config| config.lease_grace = Duration::from_millis(20)).await;
        let workers = vec![keeper(&scene), keeper(&scene)];
        scene.start("a").await;
        Self {
            scene,
            workers,
            beliefs: HashMap::new(),
            expected: None,
            is_rewound: false,
            shortened: 0,
        }
    }

    async fn episode(&mut self) -> (usize, Episode, Vec<&'static str>) {
        let (left, right) = self.workers.split_at_mut(1);
        let (at, episode) = tokio::select! {
            episode = left[0].episode() => (0, episode),
            episode = right[0].episode() => (1, episode),
        };
        if let Some(expected) = self.expected.take() {
            assert_eq!(at, expected, "it is kept elsewhere");
            assert!(episode.kept > 0, "nothing has happened to what is kept");
        }
        let committed = self.scene.history("a").await;
        let execution = episode.request.execution_id.clone().unwrap();
        let known = match episode.kept {
            0 => past(&episode),
            kept => {
                self.shortened += 1;
                assert!(episode.request.past_events.is_empty());
                let (generation, events) = self.beliefs[&at].clone();
                assert_eq!(generation, execution);
                assert_eq!(events.len(), kept as usize);
                events
            }
        };
        let shown: Vec<_> = committed.into_iter().filter(|k| *k != "rewound").collect();
        assert_eq!(known, shown);
        (at, episode, known)
    }

    /// What a worker believes once it has worked on an episode.
    fn believe(&mut self, at: usize, episode: &Episode, past: &[&'static str], sent: usize) {
        let mut events = past.to_vec();
        events.extend(episode.new_events());
        events.extend(std::iter::repeat_n("sent", sent));
        let execution = episode.request.execution_id.clone().unwrap();
        self.beliefs.insert(at, (execution, events));
    }

    /// The episode comes again, with its whole history.
    async fn answer_whole(&mut self, sent: usize, seed: u64) {
        let (at, episode, past) = self.episode().await;
        assert_eq!(episode.kept, 0, "seed {seed}");
        let actions = vec![send("nobody", "x"); sent];
        self.workers[at].answer(&episode, actions).await;
        self.believe(at, &episode, &past, sent);
        self.expect(at);
    }

    fn expect(&mut self, at: usize) {
        self.expected = Some(at).filter(|_| !self.is_rewound);
    }

    fn reopen(&mut self, at: usize) {
        self.workers[at] = keeper(&self.scene);
    }
}

/// Whatever happens between two episodes, `kept` events are exactly those that the worker knows.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_always_what_the_worker_knows() {
    for seed in 1..=6_u64 {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut play = Play::new().await;
        for _ in 0..120 {
            step(&mut play, &mut chance, seed).await;
        }
        assert!(play.shortened > 20, "seed {seed}: {}", play.shortened);
    }
}

async fn step(play: &mut Play, chance: &mut Chance, seed: u64) {
    let hub = play.scene.hub;
    let (at, episode, past) = play.episode().await;
    let host = play.scene.host.clone();
    let sent = chance.below(3) as usize;
    let actions = || vec![send("nobody", "x"); sent];
    let deed = chance.below(16);
    match deed {
        // Suspended while the episode is out: the marker comes behind it (S-9.5).
        0 => {
            host.suspend(hub, "a", None).await.unwrap();
            play.workers[at].answer(&episode, actions()).await;
            host.resume(hub, "a", None).await.unwrap();
        }
        1 => {
            let worker = &play.workers[at];
            host.abandon(hub, &worker.peer, WorkKind::Orchestration, &episode.token)
                .await
                .unwrap();
            play.believe(at, &episode, &past, sent);
            play.answer_whole(sent, seed).await;
        }
        // An answer that cannot be taken (S-13.28).
        2 => {
            let nothing = proto::OrchestratorResponse {
                actions: vec![proto::OrchestratorAction::default()],
                ..response(&episode)
            };
            play.workers[at].respond(nothing).await.unwrap_err();
            play.believe(at, &episode, &past, sent);
            play.answer_whole(sent, seed).await;
        }
        3 => {
            let lost = proto::OrchestratorResponse {
                requires_history: true,
                ..response(&episode)
            };
            play.workers[at].respond(lost).await.unwrap();
            play.beliefs.remove(&at);
            play.answer_whole(sent, seed).await;
        }
        // The stream is lost with the episode.
        4 => {
            play.reopen(at);
            play.answer_whole(sent, seed).await;
        }
        // The answer comes as a call of its own.
        5 => {
            let peer = play.workers[at].peer.clone();
            host.complete_orchestration(hub, &peer, None, response(&episode))
                .await
                .unwrap();
            play.believe(at, &episode, &past, 0);
        }
        6 => {
            let counted = proto::OrchestratorResponse {
                num_events_processed: Some(episode.request.new_events.len() as i32),
                ..response(&episode)
            };
            play.workers[at].respond(counted).await.unwrap();
            play.believe(at, &episode, &past, 0);
        }
        7 => {
            play.workers[at]
                .answer(&episode, vec![continue_as_new(Vec::new())])
                .await;
            play.is_rewound = false;
            return play.believe(at, &episode, &past, sent);
        }
        8 => {
            play.workers[at].answer(&episode, vec![fail()]).await;
            play.scene.completed("a").await;
            host.rewind(hub, "a", None).await.unwrap();
            play.is_rewound = true;
            return play.believe(at, &episode, &past, sent);
        }
        // The same id again, its generations counted from 1.
        9 => {
            play.workers[at].answer(&episode, vec![complete("")]).await;
            assert_eq!(play.scene.completed("a").await.status, Status::Completed);
            host.purge(hub, Purge::Id("a".to_owned()), false, false)
                .await
                .unwrap();
            play.scene.start("a").await;
            play.is_rewound = false;
            return play.believe(at, &episode, &past, sent);
        }
        10 => {
            play.workers[at].answer(&episode, actions()).await;
            play.believe(at, &episode, &past, sent);
            play.reopen(at);
        }
        // Suspended between two episodes.
        11 => {
            play.workers[at].answer(&episode, actions()).await;
            play.believe(at, &episode, &past, sent);
            host.suspend(hub, "a", None).await.unwrap();
            host.resume(hub, "a", None).await.unwrap();
        }
        _ => {
            play.workers[at].answer(&episode, actions()).await;
            play.believe(at, &episode, &past, sent);
            play.expect(at);
        }
    }
    play.scene.raise("a", "more").await;
}
