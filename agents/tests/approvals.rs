//! People: approving, rejecting, editing, being late; and calls that must not be repeated.

#![allow(clippy::unwrap_used)]

mod stage;

use std::time::Duration;

use mainspring::{Reuse, Status};
use mainspring_agents::{
    About, Agent, AnswerError, Approval, Decision, Message, ModelReply, Otherwise, ScriptedModel,
    Tool, answer,
};
use serde_json::json;

use stage::{Calls, Stage, query};

fn buyer(tool: Tool) -> (Agent, ScriptedModel) {
    let model = ScriptedModel::new([
        ModelReply::calls([("buy", query("a car"))]),
        ModelReply::text("done"),
    ]);
    let agent = Agent::builder("buyer", model.clone())
        .tool(tool)
        .build()
        .unwrap();
    (agent, model)
}

/// What the model was told of its call.
fn told(model: &ScriptedModel) -> String {
    let request = model.requests().pop().unwrap();
    request.messages.last().unwrap().text().to_owned()
}

#[tokio::test]
async fn a_call_waits_until_a_person_approves_it() {
    let calls = Calls::default();
    let (agent, model) = buyer(calls.tool("buy").needs_approval(Approval::required()));
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "buy").await;
    stage.advance(30 * 86_400).await;
    let open = stage.waiting().await;
    assert_eq!(
        (open[0].run.as_str(), open[0].agent.as_str()),
        (run.id(), "buyer")
    );
    let about = About::ToolCall {
        tool: "buy".to_owned(),
        arguments: query("a car"),
    };
    assert_eq!(open[0].about, about);
    assert!(calls.queries().is_empty());
    stage.decide(Decision::Approve).await;
    stage.scheduler.finish(&run).await.unwrap();
    assert_eq!(told(&model), "found a car");
    assert!(stage.waiting().await.is_empty());
}

#[tokio::test]
async fn a_rejection_is_told_to_the_model_with_its_reason() {
    let calls = Calls::default();
    let (agent, model) = buyer(calls.tool("buy").needs_approval(Approval::required()));
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "buy").await;
    stage
        .decide(Decision::Reject {
            reason: "Too dear.".to_owned(),
        })
        .await;
    let answer = stage.scheduler.finish(&run).await.unwrap();
    assert_eq!(told(&model), "A person did not allow this call. Too dear.");
    assert_eq!(answer.spent.tool_calls, 0);
    assert!(calls.queries().is_empty());
}

#[tokio::test]
async fn edited_arguments_are_used_instead_and_have_to_fit_as_well() {
    for (edited, content) in [
        (query("a bicycle"), "found a bicycle"),
        (json!({"q": 5}), "error: the arguments do not fit"),
    ] {
        let calls = Calls::default();
        let (agent, model) = buyer(calls.tool("buy").needs_approval(Approval::required()));
        let stage = Stage::with(&[&agent]).await;
        let run = stage.start(&agent, "buy").await;
        stage.decide(Decision::Edit { arguments: edited }).await;
        stage.scheduler.finish(&run).await.unwrap();
        assert!(told(&model).starts_with(content), "{}", told(&model));
    }
}

#[tokio::test]
async fn nobody_answering_in_time_means_what_the_tool_says() {
    for (otherwise, content, runs) in [
        (Otherwise::Approve, "found a car", 1),
        (
            Otherwise::Reject,
            "A person did not allow this call. nobody answered in time",
            0,
        ),
    ] {
        let calls = Calls::default();
        let approval = Approval::required()
            .within(Duration::from_secs(86_400))
            .otherwise(otherwise);
        let (agent, model) = buyer(calls.tool("buy").needs_approval(approval));
        let stage = Stage::with(&[&agent]).await;
        let run = stage.start(&agent, "buy").await;
        stage.advance(86_399).await;
        assert_eq!(stage.waiting().await.len(), 1);
        stage.scheduler.finish(&run).await.unwrap();
        assert_eq!(
            (told(&model).as_str(), calls.queries().len()),
            (content, runs)
        );
    }
}

#[tokio::test]
async fn what_is_not_asked_cannot_be_answered() {
    let calls = Calls::default();
    let (agent, _) = buyer(calls.tool("buy").needs_approval(Approval::required()));
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "buy").await;
    stage.waiting().await;
    for (run, question) in [(run.id(), "2"), ("nobody", "1")] {
        let answered = answer(&stage.client(), run, question, &Decision::Approve).await;
        assert!(matches!(answered, Err(AnswerError::NotWaiting { .. })));
    }
    // What is no answer is passed over.
    run.raise_event("approval:1", json!({"decision": "perhaps"}))
        .await
        .unwrap();
    assert_eq!(stage.waiting().await.len(), 1);
    run.raise_event("approval:1", true).await.unwrap();
    stage.scheduler.finish(&run).await.unwrap();
    assert_eq!(calls.queries(), ["a car"]);
}

#[tokio::test]
async fn several_calls_wait_side_by_side_and_are_answered_in_any_order() {
    let calls = Calls::default();
    let model = ScriptedModel::new([
        ModelReply::calls([
            ("buy", query("x")),
            ("buy", query("y")),
            ("look", query("z")),
        ]),
        ModelReply::text("done"),
    ]);
    let agent = Agent::builder("buyer", model.clone())
        .tool(calls.tool("buy").needs_approval(Approval::required()))
        .tool(calls.tool("look"))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "buy").await;
    let open = stage.waiting().await;
    assert_eq!(open.len(), 2);
    // What needs no approval has not waited for the others.
    assert_eq!(calls.queries(), ["z"]);
    for question in open.iter().rev() {
        answer(&stage.client(), run.id(), &question.id, &Decision::Approve)
            .await
            .unwrap();
        stage.scheduler.settle().await.unwrap();
    }
    stage.scheduler.finish(&run).await.unwrap();
    assert_eq!(calls.queries(), ["z", "y", "x"]);
    let request = model.requests().pop().unwrap();
    let told: Vec<&str> = request.messages[2..].iter().map(Message::text).collect();
    assert_eq!(told, ["found x", "found y", "found z"]);
}

/// Plays an earlier attempt that was cut short: the call is claimed before the run comes to it.
async fn interrupted(
    calls: &Calls,
) -> (
    Stage,
    Agent,
    ScriptedModel,
    mainspring::Instance<mainspring_agents::Answer>,
) {
    let tool = calls.tool("buy").unsafe_to_repeat();
    let (agent, model) = buyer(tool.needs_approval(Approval::required()));
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "buy").await;
    stage.scheduler.settle().await.unwrap();
    let state = run.state().await.unwrap().unwrap();
    let status: serde_json::Value = state.custom_status().unwrap().unwrap();
    let chain = status["transcript"].as_str().unwrap();
    let claim = stage.client().start_by_name::<()>("agents.claim", ());
    claim
        .id(format!("claim-{chain}-1-0"))
        .reuse(Reuse::Never)
        .await
        .unwrap();
    stage.decide(Decision::Approve).await;
    let open = stage.waiting().await;
    assert!(
        matches!(open[0].about, About::InterruptedCall { .. }),
        "{open:?}"
    );
    assert!(calls.queries().is_empty());
    (stage, agent, model, run)
}

#[tokio::test]
async fn an_interrupted_call_that_is_unsafe_to_repeat_is_repeated_only_if_a_person_says_so() {
    let calls = Calls::default();
    let (stage, _agent, model, run) = interrupted(&calls).await;
    stage.decide(Decision::Approve).await;
    stage.scheduler.finish(&run).await.unwrap();
    assert_eq!(calls.queries(), ["a car"]);
    assert_eq!(told(&model), "found a car");
}

#[tokio::test]
async fn a_person_tells_what_an_interrupted_call_gave() {
    let calls = Calls::default();
    let (stage, _agent, model, run) = interrupted(&calls).await;
    stage
        .decide(Decision::Result {
            content: "bought, receipt 7".to_owned(),
        })
        .await;
    stage.scheduler.finish(&run).await.unwrap();
    assert!(calls.queries().is_empty());
    assert_eq!(told(&model), "bought, receipt 7");
}

#[tokio::test]
async fn a_call_that_is_unsafe_to_repeat_runs_once_when_nothing_happens() {
    let calls = Calls::default();
    let tool = calls.tool_that("buy", |_| Err("sold out".to_owned()));
    let (agent, model) = buyer(tool.unsafe_to_repeat().attempts_max(5));
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "buy").await;
    stage.scheduler.finish(&run).await.unwrap();
    // Not tried again in spite of its attempts: an error does not tell how far it got.
    assert_eq!(calls.queries().len(), 1);
    assert_eq!(told(&model), "error: sold out");
    assert_eq!(
        run.state().await.unwrap().unwrap().status,
        Status::Completed
    );
}
