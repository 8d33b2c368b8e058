//! Conversations of several runs: what is remembered, who comes first, how they end, how they are made shorter.

#![allow(clippy::unwrap_used)]

mod stage;

use std::time::{Duration, SystemTime};

use mainspring::{EntityQuery, Status};
use mainspring_agents::{
    Agent, Approval, Ask, Decision, Message, ModelReply, ScriptedModel, SessionClient, Summarize,
    Trim, forget_run,
};
use serde_json::json;

use stage::{Calls, Stage, query};

/// Says how many messages it saw, instructions not counted.
fn counting() -> ScriptedModel {
    ScriptedModel::by(|request| Ok(ModelReply::text(request.messages.len().to_string())))
}

async fn pages(stage: &Stage) -> usize {
    let query = EntityQuery {
        name: Some("agentpage".to_owned()),
        ..EntityQuery::default()
    };
    stage.scheduler.settle().await.unwrap();
    stage.client().entities(query).await.unwrap().entities.len()
}

#[tokio::test]
async fn runs_of_a_session_see_what_was_said_before_and_those_of_others_do_not() {
    let agent = Agent::builder("host", counting()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    for (session, seen) in [("a", "1"), ("a", "3"), ("b", "1"), ("a", "5"), ("b", "3")] {
        let ask = Ask::new(format!("to {session}")).session(session);
        assert_eq!(stage.ask(&agent, ask).await.text, seen);
    }
    assert_eq!(stage.ask(&agent, "alone").await.text, "1");
    let session = SessionClient::new(&stage.client(), "b");
    let said = session.transcript().await.unwrap();
    let expected = [
        Message::user("to b"),
        Message::assistant("1"),
        Message::user("to b"),
        Message::assistant("3"),
    ];
    assert_eq!(said, expected);
    let info = session.info().await.unwrap().unwrap();
    assert_eq!((info.runs, info.messages, info.is_open), (2, 4, false));
}

#[tokio::test]
async fn agents_share_a_session() {
    let model = || {
        ScriptedModel::by(|request| {
            Ok(ModelReply::text(format!(
                "{}!",
                request.messages.last().unwrap().text()
            )))
        })
    };
    let first = Agent::builder("first", model()).build().unwrap();
    let second = Agent::builder("second", counting()).build().unwrap();
    let stage = Stage::with(&[&first, &second]).await;
    stage.ask(&first, Ask::new("a").session("s")).await;
    assert_eq!(
        stage.ask(&second, Ask::new("b").session("s")).await.text,
        "3"
    );
}

#[tokio::test]
async fn runs_of_one_session_follow_each_other_in_the_order_of_their_start() {
    let calls = Calls::default();
    let model = ScriptedModel::by(|request| {
        Ok(match request.messages.last().unwrap() {
            Message::User { text } if text == "first" => ModelReply::calls([("wait", query("x"))]),
            _ => ModelReply::text(request.messages.len().to_string()),
        })
    });
    let agent = Agent::builder("host", model)
        .tool(calls.tool("wait").needs_approval(Approval::required()))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let first = stage.start(&agent, Ask::new("first").session("s")).await;
    stage.scheduler.settle().await.unwrap();
    let second = stage.start(&agent, Ask::new("second").session("s")).await;
    stage.scheduler.settle().await.unwrap();
    assert_eq!(
        second.state().await.unwrap().unwrap().status,
        Status::Running
    );
    stage.decide(Decision::Approve).await;
    assert_eq!(stage.scheduler.finish(&first).await.unwrap().text, "3");
    assert_eq!(stage.scheduler.finish(&second).await.unwrap().text, "5");
}

// The pointer moves at each model call, so what a terminated run leaves ends where a model could be asked.
#[tokio::test]
async fn a_terminated_run_lets_the_next_one_in_and_leaves_no_call_without_result() {
    let calls = Calls::default();
    let model = ScriptedModel::by(|request| {
        Ok(match request.messages.last().unwrap() {
            Message::User { text } if text == "go" => {
                ModelReply::calls([("search", query("x"))]).costing(10, 0)
            }
            Message::Tool { name, .. } if name == "search" => {
                ModelReply::calls([("wait", query("y"))]).costing(20, 0)
            }
            _ => ModelReply::text(request.messages.len().to_string()),
        })
    });
    let agent = Agent::builder("host", model)
        .tool(calls.tool("search"))
        .tool(calls.tool("wait").needs_approval(Approval::required()))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, Ask::new("go").session("s")).await;
    assert_eq!(stage.waiting().await.len(), 1);
    run.terminate("enough").await.unwrap();
    let answer = stage.ask(&agent, Ask::new("again").session("s")).await;
    // go, search, its result, again.
    assert_eq!(answer.text, "4");
    let session = SessionClient::new(&stage.client(), "s");
    assert_eq!(
        session.info().await.unwrap().unwrap().spent.usage.tokens(),
        10
    );
}

#[tokio::test]
async fn a_run_that_fails_in_a_session_lets_the_next_one_in() {
    let rejected = mainspring_agents::ModelError::new(
        mainspring_agents::ModelErrorKind::Rejected,
        "no such model",
    );
    let agent = Agent::builder("host", counting().failing(0, [rejected]))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, Ask::new("go").session("s")).await;
    stage.scheduler.finish(&run).await.unwrap_err();
    // It no longer has the lock, so it cannot go on in the middle.
    run.rewind("try").await.unwrap_err();
    assert_eq!(
        stage.ask(&agent, Ask::new("again").session("s")).await.text,
        "2"
    );
}

#[tokio::test]
async fn metadata_is_kept_with_a_session_and_bounded() {
    let agent = Agent::builder("host", counting()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    let session = SessionClient::new(&stage.client(), "s");
    session.set_metadata("language", "nb").await.unwrap();
    session
        .set_metadata("plan", json!({"seats": 5}))
        .await
        .unwrap();
    session.set_metadata("language", ()).await.unwrap();
    session
        .set_metadata("long", "x".repeat(20_000))
        .await
        .unwrap_err();
    stage.ask(&agent, Ask::new("go").session("s")).await;
    let info = session.info().await.unwrap().unwrap();
    assert_eq!(info.metadata.len(), 1);
    assert_eq!(info.metadata["plan"]["seats"], 5);
}

#[tokio::test]
async fn a_session_is_deleted_with_its_transcript_once_its_time_is_over() {
    let agent = Agent::builder("host", counting())
        .session_time_to_live(Duration::from_secs(3600))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let ask = || Ask::new("go").session("s");
    stage.ask(&agent, ask()).await;
    stage.advance(3000).await;
    // Used again, it lives on from there.
    assert_eq!(stage.ask(&agent, ask()).await.text, "3");
    stage.advance(3000).await;
    let session = SessionClient::new(&stage.client(), "s");
    assert!(session.info().await.unwrap().is_some());
    assert_eq!(pages(&stage).await, 4);
    stage.advance(700).await;
    assert!(session.info().await.unwrap().is_none());
    assert_eq!(pages(&stage).await, 0);
    assert_eq!(stage.ask(&agent, ask()).await.text, "1");
}

#[tokio::test]
async fn a_deleted_session_is_gone_with_its_transcript() {
    let agent = Agent::builder("host", counting()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    for _ in 0..3 {
        stage.ask(&agent, Ask::new("go").session("s")).await;
    }
    let session = SessionClient::new(&stage.client(), "s");
    session.delete().await.unwrap();
    assert_eq!(pages(&stage).await, 0);
    assert!(session.info().await.unwrap().is_none());
    assert!(session.transcript().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_transcript_of_a_run_without_session_is_deleted_after_its_time_or_with_the_run() {
    let agent = Agent::builder("host", counting())
        .keep_transcript(Duration::from_secs(60))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    stage.ask(&agent, "go").await;
    assert_eq!(pages(&stage).await, 2);
    stage.advance(61).await;
    assert_eq!(pages(&stage).await, 0);

    let run = stage.start(&agent, "go").await;
    assert!(!forget_run(&stage.client(), run.id()).await.unwrap());
    stage.scheduler.finish(&run).await.unwrap();
    assert!(forget_run(&stage.client(), run.id()).await.unwrap());
    assert_eq!(pages(&stage).await, 0);
    assert!(run.state().await.unwrap().is_none());
}

#[tokio::test]
async fn a_run_under_an_id_that_was_used_before_has_a_transcript_of_its_own() {
    let agent = Agent::builder("host", counting()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    for _ in 0..2 {
        let run = agent.start(&stage.client(), "go").id("same").await.unwrap();
        assert_eq!(stage.scheduler.finish(&run).await.unwrap().text, "1");
        stage.advance(1).await;
    }
}

#[tokio::test]
async fn a_session_key_that_is_too_long_fails_the_run_by_name() {
    let agent = Agent::builder("host", counting()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    let ask = Ask::new("go").session("x".repeat(81));
    let (error_type, _) = stage.failure(&agent, ask).await;
    assert_eq!(error_type, "SessionKeyInvalid");
    let longest = Ask::new("go").session("x".repeat(80));
    assert_eq!(stage.ask(&agent, longest).await.text, "1");
}

#[tokio::test]
async fn a_long_transcript_is_trimmed_before_the_next_call() {
    let model = ScriptedModel::by(|request| {
        let seen = request.messages.len() as u64;
        Ok(ModelReply::text(seen.to_string()).costing(seen * 100, 0))
    });
    let agent = Agent::builder("host", model)
        .compaction(500, Trim { keep: 3 })
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let mut seen = Vec::new();
    for number in 0..6 {
        let ask = Ask::new(format!("question {number}")).session("s");
        seen.push(stage.ask(&agent, ask).await.text);
    }
    // Seven would be seen, and five were too many: three are kept, and a note stands for the rest.
    assert_eq!(seen, ["1", "3", "5", "4", "6", "4"]);
    let session = SessionClient::new(&stage.client(), "s");
    let said = session.transcript().await.unwrap();
    assert_eq!(said.len(), 5);
    assert!(said[0].text().contains("left out"));
    assert_eq!(said[3], Message::user("question 5"));
    session.delete().await.unwrap();
    assert_eq!(
        pages(&stage).await,
        0,
        "what the compactions replaced is gone, too"
    );
}

#[tokio::test]
async fn a_summary_stands_for_what_was_said_and_is_paid_for() {
    let model = ScriptedModel::by(|request| {
        let last = request.messages.last().unwrap().text();
        let text = match last.starts_with("Summarise") {
            true => "they counted".to_owned(),
            false => format!("{}: {}", request.messages.len(), request.messages[0].text()),
        };
        Ok(ModelReply::text(text).costing(request.messages.len() as u64 * 100, 0))
    });
    let agent = Agent::builder("host", model)
        .compaction(250, Summarize { keep: 1 })
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let ask = |text: &str| Ask::new(text).session("s");
    stage.ask(&agent, ask("one")).await;
    stage.ask(&agent, ask("two")).await;
    let answer = stage.ask(&agent, ask("three")).await;
    assert_eq!(
        answer.text,
        "2: [Summary of the conversation so far]\nthey counted"
    );
    assert_eq!(answer.spent.model_calls, 2);
}

#[tokio::test]
async fn a_session_that_was_never_used_is_not_there() {
    let agent = Agent::builder("host", counting()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    let session = SessionClient::new(&stage.client(), "s");
    assert!(session.info().await.unwrap().is_none());
    assert!(session.transcript().await.unwrap().is_empty());
    session
        .set_time_to_live(Some(Duration::from_secs(60)))
        .await
        .unwrap();
    stage.scheduler.settle().await.unwrap();
    assert!(session.info().await.unwrap().is_some());
    let real = SystemTime::now();
    let ahead = real
        .duration_since(stage.scheduler.now())
        .unwrap_or_default();
    stage.advance(ahead.as_secs() + 61).await;
    assert!(session.info().await.unwrap().is_none());
}
