//! One run: model calls, tools, structured output, errors of models and tools.

#![allow(clippy::unwrap_used)]

mod stage;

use std::time::Duration;

use mainspring_agents::{
    Agent, Ended, Finish, Message, ModelError, ModelErrorKind, ModelReply, Retry, ScriptedModel,
    Spent, Tool, ToolContext, Usage,
};
use serde::Deserialize;
use serde_json::json;

use stage::{Calls, Stage, query};

fn unavailable() -> ModelError {
    ModelError::new(ModelErrorKind::Unavailable, "503")
}

#[tokio::test]
async fn tools_of_one_reply_run_together_and_their_results_come_back_in_order() {
    let calls = Calls::default();
    let model = ScriptedModel::new([
        ModelReply::calls([
            ("search", query("a")),
            ("look", query("b")),
            ("search", query("c")),
        ])
        .costing(10, 5),
        ModelReply::text("done").costing(30, 2),
    ]);
    let agent = Agent::builder("finder", model.clone())
        .instructions("find")
        .tool(calls.tool("search"))
        .tool(calls.tool("look"))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let answer = stage.ask(&agent, "go").await;
    assert_eq!(
        (answer.text.as_str(), answer.ended),
        ("done", Ended::Finished)
    );
    let spent = Spent {
        model_calls: 2,
        tool_calls: 3,
        usage: Usage {
            input_tokens: 40,
            output_tokens: 7,
        },
        money_micros: 0,
    };
    assert_eq!(answer.spent, spent);
    let requests = model.requests();
    assert_eq!(
        requests[0].messages,
        [Message::system("find"), Message::user("go")]
    );
    assert_eq!(requests[0].tools.len(), 2);
    let told: Vec<&str> = requests[1].messages[3..]
        .iter()
        .map(Message::text)
        .collect();
    assert_eq!(told, ["found a", "found b", "found c"]);
    let mut keys = calls.keys();
    keys.extend(
        requests
            .iter()
            .map(|request| request.idempotency_key.clone()),
    );
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5, "each call has a key of its own: {keys:?}");
}

#[derive(Deserialize, schemars::JsonSchema, PartialEq, Debug)]
struct Verdict {
    score: u8,
}

#[tokio::test]
async fn an_answer_that_does_not_fit_its_schema_is_asked_for_again() {
    let model = ScriptedModel::new([
        ModelReply::text("eight"),
        ModelReply::text(r#"{"score": "8"}"#),
        ModelReply::text("```json\n{\"score\": 8}\n```"),
    ]);
    let agent = Agent::builder("judge", model.clone())
        .output::<Verdict>()
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let answer = stage.ask(&agent, "how good?").await;
    assert_eq!(answer.output_as::<Verdict>().unwrap(), Verdict { score: 8 });
    assert_eq!(answer.spent.model_calls, 3);
    let last = model.requests().pop().unwrap();
    let objection = last.messages.last().unwrap().text();
    assert!(objection.contains("/score"), "{objection}");
    assert!(last.output_schema.is_some());
}

#[tokio::test]
async fn a_model_that_never_fits_the_schema_fails_the_run_by_name() {
    let model = ScriptedModel::by(|_| Ok(ModelReply::text("eight")));
    let agent = Agent::builder("judge", model)
        .output::<Verdict>()
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let (error_type, message) = stage.failure(&agent, "how good?").await;
    assert_eq!(error_type, "ReplyInvalid");
    assert!(message.starts_with("agent 'judge', run '"), "{message}");
}

#[tokio::test]
async fn wrong_tool_calls_are_told_to_the_model_and_run_nothing() {
    let calls = Calls::default();
    let model = ScriptedModel::new([
        ModelReply::calls([
            ("serach", query("a")),
            ("search", json!({"q": 5})),
            ("search", json!("{\"q\":")),
        ]),
        ModelReply::calls([("search", query("a"))]),
        ModelReply::text("done"),
    ]);
    let agent = Agent::builder("finder", model.clone())
        .tool(calls.tool("search"))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    assert_eq!(stage.ask(&agent, "go").await.spent.tool_calls, 1);
    assert_eq!(calls.queries(), ["a"]);
    let told = &model.requests()[1].messages[2..];
    assert!(
        told.iter()
            .all(|message| message.text().starts_with("not run: "))
    );
    assert!(told[0].text().contains("there is no tool 'serach'"));
}

#[tokio::test]
async fn a_model_that_is_away_is_asked_again_with_the_same_key() {
    let model =
        ScriptedModel::new([ModelReply::text("hello")]).failing(0, [unavailable(), unavailable()]);
    let agent = Agent::builder("host", model.clone()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    let began = stage.scheduler.now();
    assert_eq!(stage.ask(&agent, "hi").await.text, "hello");
    let waited = stage.scheduler.now().duration_since(began).unwrap();
    assert!(waited >= Duration::from_secs(3), "1 s and 2 s: {waited:?}");
    let requests = model.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| *request == requests[0]));
}

#[tokio::test]
async fn a_provider_that_names_a_pause_is_left_alone_for_that_long() {
    let limited = ModelErrorKind::RateLimited {
        retry_after: Some(Duration::from_secs(90)),
    };
    let model = ScriptedModel::new([ModelReply::text("hello")])
        .failing(0, [ModelError::new(limited, "429")]);
    let agent = Agent::builder("host", model).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    let began = stage.scheduler.now();
    stage.ask(&agent, "hi").await;
    let waited = stage.scheduler.now().duration_since(began).unwrap();
    assert!(waited >= Duration::from_secs(90) && waited < Duration::from_secs(95));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_asked_for_under_another_key() {
    let malformed = ModelError::new(ModelErrorKind::Malformed, "half a JSON");
    let model = ScriptedModel::new([ModelReply::text("hello")]).failing(0, [malformed]);
    let agent = Agent::builder("host", model.clone()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    stage.ask(&agent, "hi").await;
    let requests = model.requests();
    assert_ne!(requests[0].idempotency_key, requests[1].idempotency_key);
}

#[tokio::test]
async fn a_refused_request_fails_the_run_at_once() {
    let rejected = ModelError::new(ModelErrorKind::Rejected, "no such model");
    let model = ScriptedModel::new([ModelReply::text("hello")]).failing(0, [rejected]);
    let agent = Agent::builder("host", model.clone()).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    let (_, message) = stage.failure(&agent, "hi").await;
    assert!(message.contains("no such model"), "{message}");
    assert_eq!(model.requests().len(), 1);
}

#[tokio::test]
async fn a_reply_that_was_cut_is_asked_for_again() {
    let cut = ModelReply {
        finish: Finish::Length,
        ..ModelReply::text("and then and then")
    };
    let model = ScriptedModel::new([cut, ModelReply::text("short")]);
    let agent = Agent::builder("host", model).build().unwrap();
    let stage = Stage::with(&[&agent]).await;
    assert_eq!(stage.ask(&agent, "hi").await.text, "short");
}

#[tokio::test]
async fn a_run_whose_model_stays_away_fails_after_its_attempts() {
    let model = ScriptedModel::by(|_| Err(unavailable()));
    let agent = Agent::builder("host", model.clone())
        .retry(Retry {
            attempts_max: 3,
            ..Retry::default()
        })
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let (_, message) = stage.failure(&agent, "hi").await;
    assert!(message.contains("agent 'host', run '"), "{message}");
    assert!(message.contains("503"), "{message}");
    assert_eq!(model.requests().len(), 3);
}

#[tokio::test]
async fn a_tools_error_is_told_to_the_model_after_its_attempts() {
    let calls = Calls::default();
    let model = ScriptedModel::new([
        ModelReply::calls([("search", query("a"))]),
        ModelReply::text("nothing there"),
    ]);
    let failing = calls.tool_that("search", |_| Err("no route".to_owned()));
    let agent = Agent::builder("finder", model.clone())
        .tool(failing.attempts_max(3))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    stage.ask(&agent, "go").await;
    let keys = calls.keys();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
    let told = model.requests()[1]
        .messages
        .last()
        .unwrap()
        .text()
        .to_owned();
    assert_eq!(told, "error: no route");
}

#[tokio::test]
async fn a_tool_that_panics_or_hangs_does_not_take_the_run_with_it() {
    async fn hang(_: ToolContext, _: serde_json::Value) -> Result<(), String> {
        std::future::pending().await
    }
    async fn fall(_: ToolContext, _: serde_json::Value) -> Result<(), String> {
        panic!("fell over")
    }
    let any = || json!({"type": "object"});
    let model = ScriptedModel::new([
        ModelReply::calls([("hang", json!({})), ("fall", json!({}))]),
        ModelReply::text("done"),
    ]);
    let agent = Agent::builder("finder", model.clone())
        .tool(Tool::with_schema("hang", "", any(), hang).within(Duration::from_millis(5)))
        .tool(Tool::with_schema("fall", "", any(), fall))
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    stage.ask(&agent, "go").await;
    let request = model.requests().pop().unwrap();
    let told: Vec<&str> = request.messages[2..].iter().map(Message::text).collect();
    assert_eq!(told[0], "error: it took longer than 5ms");
    assert!(told[1].contains("fell over"), "{told:?}");
}

#[test]
fn an_agent_that_cannot_work_is_refused_when_it_is_built() {
    let model = || ScriptedModel::new([]);
    let tool = |name: &str, schema| {
        Tool::with_schema(name, "", schema, |_, _: serde_json::Value| async {
            Ok::<(), String>(())
        })
    };
    let good = || json!({"type": "object"});
    for (builder, part) in [
        (Agent::builder("a b", model()), "the agent is called 'a b'"),
        (
            Agent::builder("a", model())
                .tool(tool("x", good()))
                .tool(tool("X", good())),
            "two tools 'X'",
        ),
        (
            Agent::builder("a", model()).tool(tool("x", json!({"type": "no type"}))),
            "the schema of tool 'x'",
        ),
        (
            Agent::builder("a", model()).page_bytes_max(10),
            "pages of 10 bytes",
        ),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
