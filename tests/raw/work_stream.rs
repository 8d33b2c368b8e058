//! Our own work stream: items out and answers in over one call, receipts, and workers that keep instances in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use mainspring_proto::lazy::work_item::Request as Work;
use mainspring_proto::lazy::{OrchestratorRequest, WorkItem};
use mainspring_proto::v1::answer::Answer as Said;
use mainspring_proto::v1::client::WorkStreamClient;
use mainspring_proto::v1::to_scheduler::Message as Word;
use mainspring_proto::v1::*;
use mainspring_proto::{
    ActivityRequest, ActivityResponse, GetWorkItemsRequest, HistoryEvent, OrchestrationStatus,
    OrchestratorAction, OrchestratorResponse,
};
use mainspring_tests::action::{complete, continue_as_new, schedule, send_event};
use mainspring_tests::{Peer, Scheduler, kinds, patiently};
use prost::Message as _;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// Less than the grace in which a lost stream's items are reserved (S-13.19).
const AT_ONCE: Duration = Duration::from_secs(3);

/// One open `Work` call.
struct Lane {
    sender: Option<UnboundedSender<ToScheduler>>,
    messages: Streaming<ToWorker>,
    items: Vec<Item>,
    receipts: Vec<Receipt>,
    next: u64,
}

/// An episode, with what it leaves out.
#[derive(Debug, Clone)]
struct Episode {
    request: OrchestratorRequest,
    token: String,
    kept: u32,
}

impl Episode {
    fn response(&self, actions: Vec<OrchestratorAction>) -> OrchestratorResponse {
        OrchestratorResponse {
            instance_id: self.request.instance_id.clone(),
            completion_token: self.token.clone(),
            actions,
            ..Default::default()
        }
    }

    fn past(&self) -> Vec<HistoryEvent> {
        let events = self.request.past_events.iter();
        events
            .map(|event| HistoryEvent::decode(event.clone()).unwrap())
            .collect()
    }
}

struct Activity {
    request: ActivityRequest,
    token: String,
}

impl Activity {
    fn response(&self, result: &str) -> ActivityResponse {
        let instance = self.request.orchestration_instance.clone();
        ActivityResponse {
            instance_id: instance.unwrap().instance_id,
            task_id: self.request.task_id,
            result: Some(result.to_owned()),
            completion_token: self.token.clone(),
            ..Default::default()
        }
    }
}

fn says(message: Word) -> ToScheduler {
    ToScheduler {
        message: Some(message),
    }
}

fn opening(keeps_instances: bool, options: GetWorkItemsRequest) -> ToScheduler {
    says(Word::Open(Open {
        options: Some(options),
        keeps_instances,
    }))
}

async fn try_open(peer: &Peer, hub: &str, first: ToScheduler) -> Result<Lane, Status> {
    let (sender, receiver) = unbounded_channel();
    sender.send(first).unwrap();
    let mut request = Request::new(UnboundedReceiverStream::new(receiver));
    if !hub.is_empty() {
        let hub = hub.parse().unwrap();
        request.metadata_mut().insert("taskhub", hub);
    }
    let mut client = WorkStreamClient::new(peer.channel())
        .max_decoding_message_size(128 << 20)
        .max_encoding_message_size(256 << 20);
    let messages = patiently("Work", client.work(request)).await?.into_inner();
    Ok(Lane {
        sender: Some(sender),
        messages,
        items: Vec::new(),
        receipts: Vec::new(),
        next: 1,
    })
}

async fn open(peer: &Peer, keeps_instances: bool) -> Lane {
    try_open(
        peer,
        "",
        opening(keeps_instances, GetWorkItemsRequest::default()),
    )
    .await
    .unwrap()
}

/// A stream that keeps instance `a`, which waits for its activity `work`.
async fn working(peer: &Peer) -> Lane {
    let mut lane = open(peer, true).await;
    peer.start("n", "a").await;
    let episode = lane.episode().await;
    lane.answer(&episode, vec![schedule(1, "work", "1")]).await;
    lane
}

impl Lane {
    async fn message(&mut self) -> Result<Option<ToWorker>, Status> {
        patiently("a message of the work stream", self.messages.message()).await
    }

    /// Takes in one message; pings are passed over.
    async fn read(&mut self) {
        match self.message().await {
            Ok(Some(message)) => self.note(message),
            Ok(None) => panic!("the work stream ended with OK"),
            Err(status) => panic!("the work stream ended: {status}"),
        }
    }

    fn note(&mut self, message: ToWorker) {
        let is_ping = |item: &WorkItem| matches!(item.request, Some(Work::HealthPing(_)));
        let items = message.items.into_iter();
        self.items
            .extend(items.filter(|item| !item.item.as_ref().is_some_and(is_ping)));
        self.receipts.extend(message.receipts);
    }

    async fn item(&mut self) -> Item {
        // Pings are messages, too.
        patiently("a work item", async {
            while self.items.is_empty() {
                self.read().await;
            }
        })
        .await;
        self.items.remove(0)
    }

    async fn episode(&mut self) -> Episode {
        let Item { item, kept_events } = self.item().await;
        let item = item.unwrap();
        match item.request {
            Some(Work::OrchestratorRequest(request)) => Episode {
                request,
                token: item.completion_token,
                kept: kept_events,
            },
            other => panic!("expected an episode, got {other:?}"),
        }
    }

    async fn activity(&mut self) -> Activity {
        let Item { item, kept_events } = self.item().await;
        let item = item.unwrap();
        assert_eq!(kept_events, 0);
        match item.request {
            Some(Work::ActivityRequest(request)) => Activity {
                request,
                token: item.completion_token,
            },
            other => panic!("expected an activity, got {other:?}"),
        }
    }

    fn tell(&self, word: Word) {
        self.sender.as_ref().unwrap().send(says(word)).unwrap();
    }

    /// Sends answers in one message and returns the number of the first.
    fn send(&mut self, said: Vec<Said>) -> u64 {
        let first = self.next;
        let answers = said
            .into_iter()
            .zip(first..)
            .map(|(said, number)| Answer {
                number,
                answer: Some(said),
            })
            .collect::<Vec<_>>();
        self.next += answers.len() as u64;
        self.tell(Word::Answers(Answers { answers }));
        first
    }

    async fn receipt(&mut self, number: u64) -> Receipt {
        patiently("a receipt", async {
            loop {
                let found = self.receipts.iter().position(|r| r.number == number);
                if let Some(at) = found {
                    return self.receipts.remove(at);
                }
                self.read().await;
            }
        })
        .await
    }

    /// Sends one answer and waits until it is durable.
    async fn say(&mut self, said: Said) {
        let number = self.send(vec![said]);
        let receipt = self.receipt(number).await;
        assert_eq!((receipt.code, receipt.message.as_str()), (0, ""));
    }

    async fn answer(&mut self, episode: &Episode, actions: Vec<OrchestratorAction>) {
        self.say(Said::Orchestration(episode.response(actions)))
            .await;
    }

    async fn finish(&mut self, activity: &Activity, result: &str) {
        self.say(Said::Activity(activity.response(result))).await;
    }

    /// Runs the one activity that is to come. Its receipt may be that of the episode that follows.
    async fn run_activity(&mut self) -> u64 {
        let activity = self.activity().await;
        self.send(vec![Said::Activity(activity.response("1"))])
    }

    /// Reads on until the stream ends.
    async fn end(&mut self) -> Result<(), Status> {
        while let Some(message) = self.message().await? {
            self.note(message);
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_orchestration_and_its_activity_run_over_one_stream() {
    // S-13.2: a ping comes first.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    peer.start("n", "a").await;
    let mut lane = open(&peer, false).await;
    let first = lane.message().await.unwrap().unwrap();
    let ping = first.items[0].item.as_ref().unwrap();
    assert!(matches!(ping.request, Some(Work::HealthPing(_))));
    lane.note(first);
    let episode = lane.episode().await;
    lane.answer(&episode, vec![schedule(1, "work", "1")]).await;
    lane.run_activity().await;
    let episode = lane.episode().await;
    assert_eq!(episode.kept, 0, "nothing is kept unless the worker says so");
    assert_eq!(
        kinds(&episode.past()),
        ["OrchestratorStarted", "ExecutionStarted", "TaskScheduled"]
    );
    lane.answer(&episode, vec![complete(2, "1")]).await;
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Completed);
}

#[tokio::test]
async fn what_is_ready_goes_out_together_and_is_answered_together() {
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    for number in 0..60 {
        peer.start("n", &format!("i{number}")).await;
    }
    let mut lane = open(&peer, false).await;
    let mut messages = 0;
    while lane.items.len() < 60 {
        lane.read().await;
        messages += 1;
    }
    assert!(messages < 60, "each item came alone");
    let mut said = Vec::new();
    for _ in 0..60 {
        let episode = lane.episode().await;
        said.push(Said::Orchestration(episode.response(vec![
            schedule(1, "work", "1"),
            schedule(2, "work", "2"),
        ])));
    }
    let first = lane.send(said);
    let mut numbers = BTreeSet::new();
    while numbers.len() < 60 {
        lane.read().await;
        for receipt in lane.receipts.drain(..) {
            assert_eq!(receipt.code, 0, "{receipt:?}");
            assert!(numbers.insert(receipt.number), "{receipt:?}");
        }
    }
    assert_eq!(numbers, (first..first + 60).collect());
    // Receipt and effect are one commit (S-0.6).
    for number in 0..60 {
        let state = peer.get(&format!("i{number}")).await;
        assert_eq!(state.orchestration_status(), OrchestrationStatus::Running);
    }
    while lane.items.len() < 100 {
        lane.read().await;
    }
}

#[tokio::test]
async fn a_kept_instance_is_sent_without_its_history_and_the_number_of_its_events() {
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    peer.start("n", "a").await;
    let mut known = 0;
    for id in 0..5 {
        let episode = lane.episode().await;
        assert_eq!(episode.kept, known);
        assert!(episode.past().is_empty());
        assert_eq!(known as usize, peer.history("a").await.len());
        let actions = vec![
            schedule(2 * id, "work", "1"),
            send_event(2 * id + 1, "nobody", "x", "1"),
        ];
        // The worker's own count: what it knew, what is new, and a confirmation for each action.
        known += (episode.request.new_events.len() + actions.len()) as u32;
        lane.answer(&episode, actions).await;
        lane.run_activity().await;
    }
}

#[tokio::test]
async fn a_worker_that_lost_an_instance_or_its_stream_is_sent_all_of_it() {
    // S-3.32.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = working(&peer).await;
    lane.run_activity().await;
    let short = lane.episode().await;
    assert_eq!((short.kept, short.past().len()), (3, 0));
    lane.say(Said::Orchestration(OrchestratorResponse {
        requires_history: true,
        ..short.response(vec![])
    }))
    .await;
    let whole = lane.episode().await;
    assert_eq!((whole.kept, whole.past().len()), (0, 3));
    assert_eq!(
        kinds(&whole.request.new_events),
        ["OrchestratorStarted", "TaskCompleted"]
    );
    lane.answer(&whole, vec![schedule(2, "work", "1")]).await;

    // Another stream knows nothing, be it the same worker's.
    let activity = lane.activity().await;
    drop(lane);
    let mut lane = open(&peer, true).await;
    lane.finish(&activity, "1").await;
    let whole = lane.episode().await;
    assert_eq!((whole.kept, whole.past().len()), (0, 6));
    lane.answer(&whole, vec![schedule(3, "work", "1")]).await;
    lane.run_activity().await;
    let short = lane.episode().await;
    assert_eq!((short.kept, short.past().len()), (9, 0));

    // Given back, it goes whole to another one.
    let mut other = open(&peer, true).await;
    lane.say(Said::Abandon(Abandon {
        kind: WorkKind::Orchestration.into(),
        completion_token: short.token,
    }))
    .await;
    let whole = other.episode().await;
    assert_eq!((whole.kept, whole.past().len()), (0, 9));
    other.answer(&whole, vec![complete(4, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn a_new_generation_begins_with_nothing_kept() {
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    peer.start("n", "a").await;
    for _ in 0..3 {
        let episode = lane.episode().await;
        assert_eq!((episode.kept, episode.past().len()), (0, 0));
        lane.answer(&episode, vec![schedule(1, "work", "1")]).await;
        lane.run_activity().await;
        let episode = lane.episode().await;
        assert_eq!(episode.kept, 3);
        lane.answer(&episode, vec![continue_as_new(2, "1")]).await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_taken_has_a_receipt_with_a_code_and_its_item_comes_again() {
    // S-4.3, S-4.4, S-13.28.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    peer.start("n", "a").await;
    let episode = lane.episode().await;
    let invalid = episode.response(vec![OrchestratorAction::default()]);
    let number = lane.send(vec![Said::Orchestration(invalid)]);
    let receipt = lane.receipt(number).await;
    assert_eq!(receipt.code, Code::InvalidArgument as i32);
    assert!(receipt.message.contains("action 0"), "{receipt:?}");
    let again = lane.episode().await;
    assert_ne!(again.token, episode.token);
    // What proves nothing any more is answered like success.
    lane.answer(&episode, vec![complete(1, "1")]).await;
    let nothing = Answer {
        number: 77,
        answer: None,
    };
    let unknown = Abandon {
        kind: 9,
        completion_token: again.token.clone(),
    };
    let unknown = Answer {
        number: 78,
        answer: Some(Said::Abandon(unknown)),
    };
    let answers = vec![nothing, unknown];
    lane.tell(Word::Answers(Answers { answers }));
    for number in [77, 78] {
        let receipt = lane.receipt(number).await;
        assert_eq!(receipt.code, Code::InvalidArgument as i32, "{receipt:?}");
    }
    lane.answer(&again, vec![complete(1, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn an_answer_beyond_all_limits_fails_its_instance_rather_than_the_stream() {
    // S-14.4.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    peer.start("n", "a").await;
    let episode = lane.episode().await;
    let payload = "x".repeat(1_000_000);
    let actions = (0..70).map(|id| schedule(id, "work", &payload)).collect();
    lane.answer(&episode, actions).await;
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
    let failure = state.failure_details.unwrap();
    assert_eq!(failure.error_type, "PayloadTooLarge");
    peer.start("n", "b").await;
    let episode = lane.episode().await;
    lane.answer(&episode, vec![complete(1, "1")]).await;
}

#[tokio::test]
async fn a_stream_begins_with_open_in_a_hub_that_exists() {
    // S-1.6.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let answers = says(Word::Answers(Answers::default()));
    let refused = try_open(&peer, "", answers).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let first = opening(true, GetWorkItemsRequest::default());
    let refused = try_open(&peer, "nowhere", first).await.err().unwrap();
    let published = Peer::connect_as(&scheduler, "", Some("nowhere")).await;
    let expected = published
        .try_open(GetWorkItemsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (expected.code(), expected.message())
    );
    let mut lane = open(&peer, true).await;
    let twice = opening(true, GetWorkItemsRequest::default());
    lane.sender.as_ref().unwrap().send(twice).unwrap();
    assert!(lane.end().await.is_err());
}

#[tokio::test]
async fn a_worker_that_half_closes_has_all_its_receipts_and_what_it_held_goes_elsewhere_at_once() {
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    for id in ["a", "b", "c"] {
        peer.start("n", id).await;
    }
    let (a, b, c) = (
        lane.episode().await,
        lane.episode().await,
        lane.episode().await,
    );
    let first = lane.send(vec![
        Said::Orchestration(a.response(vec![schedule(1, "work", "1")])),
        Said::Orchestration(b.response(vec![complete(1, "1")])),
    ]);
    let since = Instant::now();
    lane.sender = None;
    lane.end().await.unwrap();
    for number in [first, first + 1] {
        assert_eq!(lane.receipt(number).await.code, 0);
    }
    let mut other = open(&peer, true).await;
    let mut left = BTreeSet::new();
    while left.len() < 2 {
        left.insert(match other.item().await.item.unwrap().request.unwrap() {
            Work::OrchestratorRequest(request) => request.instance_id,
            Work::ActivityRequest(request) => request.name,
            other => panic!("unexpected {other:?}"),
        });
    }
    assert!(since.elapsed() < AT_ONCE);
    let expected = [c.request.instance_id, "work".to_owned()];
    assert_eq!(left, expected.into());
}

#[tokio::test]
async fn a_worker_that_wants_no_more_can_still_answer_what_it_has() {
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    peer.start("n", "a").await;
    let episode = lane.episode().await;
    lane.tell(Word::NoMore(NoMore {}));
    // One answer behind the other: by its receipt the first word was heard.
    lane.answer(&episode, vec![schedule(1, "work", "1")]).await;
    peer.start("n", "b").await;
    let mut other = open(&peer, true).await;
    other.run_activity().await;
    for _ in ["a", "b"] {
        let episode = other.episode().await;
        assert_eq!(episode.kept, 0);
        other.answer(&episode, vec![complete(2, "1")]).await;
    }
    peer.wait("a").await;
    peer.wait("b").await;
    lane.sender = None;
    lane.end().await.unwrap();
    assert!(lane.items.is_empty(), "{:?}", lane.items);
}

#[tokio::test]
async fn an_outcome_goes_out_before_it_is_durable_and_is_lost_with_the_server_only_unacknowledged()
{
    // S-0.6, S-13.21: the activity is run again, since nobody was told that it was done.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = working(&peer).await;
    let number = lane.run_activity().await;
    let episode = lane.episode().await;
    let new = kinds(&episode.request.new_events);
    assert_eq!(new, ["OrchestratorStarted", "TaskCompleted"]);
    assert!(lane.receipts.iter().all(|receipt| receipt.number != number));
    scheduler.kill();
    scheduler.restart();

    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    let number = lane.run_activity().await;
    let episode = lane.episode().await;
    lane.answer(&episode, vec![complete(2, "1")]).await;
    assert_eq!(lane.receipt(number).await.code, 0);
    peer.wait("a").await;
}

#[tokio::test]
async fn draining_ends_the_stream_with_unavailable() {
    // S-1.14.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = working(&peer).await;
    scheduler.drain();
    assert_eq!(lane.end().await.unwrap_err().code(), Code::Unavailable);
    drop((lane, peer));
    assert!(scheduler.ended().await.success());
}

#[tokio::test]
async fn what_has_a_receipt_survives_a_crash_amid_others_that_have_none() {
    // S-0.6, S-13.21.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut lane = open(&peer, true).await;
    const COUNT: usize = 90;
    for number in 0..COUNT {
        peer.start("n", &format!("i{number}")).await;
    }
    let mut said = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        let episode = lane.episode().await;
        ids.push(episode.request.instance_id.clone());
        said.push(Said::Orchestration(
            episode.response(vec![complete(1, "1")]),
        ));
    }
    let mut durable = BTreeSet::new();
    for (at, said) in said.into_iter().enumerate() {
        lane.send(vec![said]);
        // About half of them are waited for, while more are on their way.
        if at % 30 == 29 {
            while durable.len() <= at / 2 {
                lane.read().await;
                let receipts = lane.receipts.drain(..);
                durable.extend(receipts.map(|r| ids[r.number as usize - 1].clone()));
            }
        }
    }
    scheduler.kill();
    while let Ok(Some(message)) = lane.message().await {
        let receipts = message.receipts.into_iter();
        durable.extend(receipts.map(|r| ids[r.number as usize - 1].clone()));
    }
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    for id in &durable {
        let state = peer.get(id).await;
        assert_eq!(
            state.orchestration_status(),
            OrchestrationStatus::Completed,
            "{id}"
        );
    }
    // The rest is there, done or to be done again.
    let mut lane = open(&peer, true).await;
    for id in &ids {
        while peer.get(id).await.orchestration_status() != OrchestrationStatus::Completed {
            let episode = lane.episode().await;
            assert_eq!(episode.kept, 0);
            assert!(!durable.contains(&episode.request.instance_id));
            lane.answer(&episode, vec![complete(1, "1")]).await;
        }
    }
}
