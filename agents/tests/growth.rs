//! How much is written while a transcript grows: in proportion to what is said, although each model call sees all of it.
//!
//! Counted are the bytes of the run's history and of all entities' states, which is what the scheduler keeps of a run; what its store
//! makes of that is measured elsewhere.

#![allow(clippy::unwrap_used)]

mod stage;

use mainspring::{EntityQuery, Instance};
use mainspring_agents::{
    Agent, Answer, Ask, Budget, Message, ModelReply, ScriptedModel, SessionClient, Tool,
    ToolContext,
};
use serde_json::{Value, json};

use stage::Stage;

/// Calls a tool that gives so many bytes, `calls` times.
fn digger(calls: usize, bytes: usize) -> (Agent, ScriptedModel) {
    let model = ScriptedModel::by(move |request| {
        let seen = request.messages.iter();
        let asked = seen
            .filter(|message| matches!(message, Message::Tool { .. }))
            .count();
        Ok(match asked < calls {
            true => ModelReply::calls([("dig", json!({}))]),
            false => ModelReply::text(format!("{asked}")),
        })
    });
    let dig =
        move |_: ToolContext, _: Value| async move { Ok::<_, String>("\"x".repeat(bytes / 2)) };
    let agent = Agent::builder("digger", model.clone())
        .tool(Tool::with_schema("dig", "", json!({"type": "object"}), dig))
        .budget(Budget::unlimited())
        .build()
        .unwrap();
    (agent, model)
}

/// Bytes of the history and of all entities.
async fn bytes(stage: &Stage, run: &Instance<Answer>) -> (usize, usize) {
    stage.scheduler.settle().await.unwrap();
    let history = run.history().await.unwrap().to_bytes().len();
    let mut query = EntityQuery::default();
    let mut states = 0;
    loop {
        let page = stage.client().entities(query.clone()).await.unwrap();
        let raw = page.entities.iter().filter_map(|entity| entity.raw_state());
        states += raw.map(str::len).sum::<usize>();
        match page.continue_from {
            None => return (history, states),
            next => query.continue_from = next,
        }
    }
}

#[tokio::test]
async fn a_hundred_model_calls_write_in_proportion_to_what_is_said() {
    let mut written = Vec::new();
    for calls in [24, 49, 99] {
        let (agent, _) = digger(calls, 4000);
        let stage = Stage::with(&[&agent]).await;
        let run = stage.start(&agent, Ask::new("dig").session("s")).await;
        let answer = stage.scheduler.finish(&run).await.unwrap();
        assert_eq!(answer.spent.model_calls as usize, calls + 1);
        let (history, states) = bytes(&stage, &run).await;
        let session = SessionClient::new(&stage.client(), "s");
        let said = session.info().await.unwrap().unwrap().bytes as usize;
        println!(
            "{} model calls said {said} bytes: history {history}, entities {states}",
            calls + 1
        );
        // Each result is in history twice, as what the tool gave and on its way to a page, and once on the page. Quotes within are
        // escaped once more each time.
        assert!(
            history < 4 * said,
            "history {history} for {said} bytes said"
        );
        assert!(
            states < said + said / 5,
            "entities {states} for {said} bytes said"
        );
        written.push(history + states);
    }
    // Twice the calls, twice the bytes; a transcript in each input would make them four times as many.
    for pair in written.windows(2) {
        let growth = pair[1] as f64 / pair[0] as f64;
        assert!((1.8..2.2).contains(&growth), "{written:?}");
    }
}

#[tokio::test]
async fn a_transcript_longer_than_any_payload_is_seen_whole() {
    let (agent, model) = digger(16, 120_000);
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, Ask::new("dig").session("s")).await;
    assert_eq!(stage.scheduler.finish(&run).await.unwrap().text, "16");
    let last = model.requests().pop().unwrap();
    let seen: usize = last
        .messages
        .iter()
        .map(|message| message.text().len())
        .sum();
    assert!(seen > 16 * 120_000, "{seen} bytes");
    // By whoever has none of it in memory, too.
    let session = SessionClient::new(&stage.client(), "s");
    let said = session.transcript().await.unwrap();
    assert_eq!(said[..last.messages.len()], last.messages);
}

#[tokio::test]
async fn a_message_longer_than_a_page_is_cut_over_several_and_seen_whole() {
    let (agent, model) = digger(1, 400_000);
    let stage = Stage::with(&[&agent]).await;
    stage.ask(&agent, "dig").await;
    let seen = model.requests().pop().unwrap();
    assert_eq!(seen.messages.last().unwrap().text().len(), 400_000);
}
