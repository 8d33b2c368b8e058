//! Habits of the Java SDK: one thread for everything, no limits, no tokens, errors that make it leave its stream.

use std::time::Duration;

use mainspring_proto::work_item::Request as Work;
use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule};
use mainspring_tests::{Activity, Episode, Peer, Scheduler, patiently};
use tonic::Code;

const USER_AGENT: &str = "grpc-java-netty/1.59.0";

#[tokio::test]
async fn one_thread_that_reads_and_answers_in_turn_runs_orchestrations_and_their_activities() {
    // S-13.16, S-6.6 with the start time unset: an answer never waits for something that only this thread could do.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    for n in 0..5 {
        let request = CreateInstanceRequest {
            name: "chain".to_owned(),
            instance_id: format!("c{n}"),
            scheduled_start_timestamp: None,
            ..Default::default()
        };
        peer.create(request).await.unwrap();
    }
    let mut ended = 0;
    while ended < 5 {
        let item = stream.item().await;
        match item.request {
            Some(Work::OrchestratorRequest(request)) => {
                let done = request
                    .past_events
                    .iter()
                    .chain(&request.new_events)
                    .filter(|event| {
                        matches!(
                            event.event_type,
                            Some(history_event::EventType::TaskCompleted(_))
                        )
                    })
                    .count() as i32;
                let action = if done == 3 {
                    complete(done, "\"3\"")
                } else {
                    schedule(done, "step", "1")
                };
                ended += i32::from(done == 3);
                let mut response = Episode {
                    request,
                    token: String::new(),
                }
                .response(vec![action]);
                // Java always sends a custom status; the empty one means none (S-3.23).
                response.custom_status = Some(String::new());
                peer.respond(response).await.unwrap();
            }
            Some(Work::ActivityRequest(request)) => {
                peer.finish(
                    &Activity {
                        request,
                        token: String::new(),
                    },
                    "1",
                )
                .await;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    for n in 0..5 {
        let state = peer.wait(&format!("c{n}")).await;
        assert_eq!(state.output.as_deref(), Some("\"3\""));
        assert_eq!(state.custom_status, None);
        assert_eq!(state.scheduled_start_timestamp, None);
    }
}

#[tokio::test]
async fn a_peer_that_works_one_by_one_is_not_given_everything_at_once() {
    // S-13.6: about 8 of each kind.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    for n in 0..30 {
        peer.start("n", &format!("i{n}")).await;
    }
    let mut stream = peer.open().await;
    for _ in 0..8 {
        stream.episode().await;
    }
    stream.nothing_for(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn an_error_on_an_answer_ends_the_stream_that_holds_the_item() {
    // S-13.25: Java never reads that stream again, and opens another 5 s later.
    let scheduler = Scheduler::start(&["--lease-grace", "100ms"]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let unknown = OrchestratorAction {
        id: 0,
        orchestrator_action_type: None,
    };
    let refused = peer
        .respond(episode.response(vec![unknown]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(stream.end().await.code(), Code::Unavailable);
    let mut stream = peer.open().await;
    let again = stream.episode().await;
    peer.answer(&again, vec![complete(0, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn a_stale_answer_is_no_error_and_the_stream_lives_on() {
    // S-4.4.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![complete(0, "1")]).await;
    peer.answer(&episode, vec![complete(0, "2")]).await;
    peer.start("n", "b").await;
    assert_eq!(stream.episode().await.request.instance_id, "b");
}

#[tokio::test]
async fn equal_tasks_are_not_with_peers_without_tokens_at_the_same_time() {
    // S-5.10: an answer by instance and task id could mean either.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    peer.answer(
        &episode,
        vec![
            schedule(1, "work", "\"one\""),
            schedule(1, "work", "\"two\""),
        ],
    )
    .await;
    let one = stream.activity().await;
    stream.nothing_for(Duration::from_millis(300)).await;
    peer.finish(
        &Activity {
            token: String::new(),
            ..one
        },
        "1",
    )
    .await;
    let mut is_second_seen = false;
    let mut completed = 0;
    while completed < 2 {
        let item = stream.item().await;
        match item.request {
            Some(Work::ActivityRequest(request)) => {
                assert!(!is_second_seen, "each scheduling runs once");
                is_second_seen = true;
                peer.finish(
                    &Activity {
                        request,
                        token: String::new(),
                    },
                    "2",
                )
                .await;
            }
            Some(Work::OrchestratorRequest(request)) => {
                let episode = Episode {
                    request,
                    token: String::new(),
                };
                completed += episode
                    .new_kinds()
                    .iter()
                    .filter(|kind| *kind == "TaskCompleted")
                    .count();
                let actions = if completed == 2 {
                    vec![complete(2, "1")]
                } else {
                    Vec::new()
                };
                peer.answer(&episode, actions).await;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    peer.wait("a").await;
}

#[tokio::test]
async fn a_silent_older_stream_of_the_same_connection_gives_up_its_items_to_the_one_that_answers() {
    // S-13.24: a Java reader thread can die with its stream open.
    let scheduler = Scheduler::start(&["--lease-grace", "300ms"]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut dead = peer.open().await;
    peer.start("n", "a").await;
    let _held = dead.episode().await;
    let mut alive = peer.open().await;
    assert!(alive.message().await.unwrap().is_some());
    // An answer on the later stream shows the older one to be silent; what that has held for longer than the grace
    // comes here.
    peer.start("n", "b").await;
    patiently("the instance that the silent stream holds", async {
        loop {
            let episode = alive.episode().await;
            peer.answer(&episode, vec![complete(0, "1")]).await;
            if episode.request.instance_id == "a" {
                break;
            }
        }
    })
    .await;
    peer.wait("a").await;
    // Nothing more goes to the silent one.
    for n in 0..4 {
        peer.start("n", &format!("c{n}")).await;
        let episode = alive.episode().await;
        peer.answer(&episode, vec![complete(0, "1")]).await;
    }
}
