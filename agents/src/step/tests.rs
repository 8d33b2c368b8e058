//! The rules that a reply meets, one behaviour a test.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::approval::Approval;
use crate::tool::{Tool, ToolContext};

async fn nothing(_: ToolContext, _: Value) -> Result<(), String> {
    Ok(())
}

fn tool(name: &str) -> Tool {
    let schema =
        json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    Tool::with_schema(name, "", schema, nothing)
}

fn rules(tools: &[Tool], output: Option<Value>) -> Rules {
    Rules {
        tools: tools
            .iter()
            .map(|tool| ToolRules::new(tool).unwrap())
            .collect(),
        output: output.map(|schema| Schema::new(schema).unwrap()),
    }
}

fn number() -> Option<Value> {
    Some(json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}))
}

fn run() -> Plan {
    Plan::Run {
        approval: None,
        is_unsafe_to_repeat: false,
        attempts_max: 1,
    }
}

#[test]
fn a_text_without_calls_is_the_answer() {
    let step = next(&rules(&[tool("a")], None), &[], &ModelReply::text("done"));
    assert_eq!(
        step,
        Step::Finish {
            is_structured: false
        }
    );
}

#[test]
fn several_calls_of_one_reply_are_planned_together() {
    let reply = ModelReply::calls([("a", json!({"q": "x"})), ("b", json!({"q": "y"}))]);
    let step = next(&rules(&[tool("a"), tool("b")], None), &[], &reply);
    assert_eq!(step, Step::CallTools(vec![run(), run()]));
}

#[test]
fn a_call_of_an_unknown_tool_or_with_wrong_arguments_is_refused_and_the_others_run() {
    let reply = ModelReply::calls([
        ("a", json!({"q": "x"})),
        ("c", json!({})),
        ("a", json!({"q": 5})),
        ("a", json!("{not json")),
    ]);
    let Step::CallTools(plans) = next(&rules(&[tool("a")], None), &[], &reply) else {
        panic!("calls were expected");
    };
    assert_eq!(plans[0], run());
    let refused: Vec<&str> = plans.iter().filter_map(refusal).collect();
    assert_eq!(refused[0], "not run: there is no tool 'c'; there are: a");
    assert!(refused[1].contains("/q: 5 is not of type"), "{refused:?}");
    assert!(refused[2].contains("the whole: "), "{refused:?}");
}

#[test]
fn a_model_that_calls_wrongly_again_and_again_is_given_up() {
    let rules = rules(&[tool("a")], None);
    let reply = ModelReply::calls([("c", json!({}))]);
    let mut transcript = vec![Message::user("go")];
    for _ in 0..CORRECTIONS_MAX {
        let Step::CallTools(plans) = next(&rules, &transcript, &reply) else {
            panic!("it is told first");
        };
        transcript.push(Message::Assistant {
            text: String::new(),
            tool_calls: reply.tool_calls.clone(),
        });
        transcript.push(Message::tool(
            &reply.tool_calls[0],
            refusal(&plans[0]).unwrap(),
        ));
    }
    assert!(matches!(
        next(&rules, &transcript, &reply),
        Step::Fail { .. }
    ));
    // One success between, and it is told again.
    transcript.push(Message::tool(&reply.tool_calls[0], "found"));
    assert!(matches!(
        next(&rules, &transcript, &reply),
        Step::CallTools(_)
    ));
}

#[test]
fn no_more_calls_than_allowed_are_run_at_once() {
    let reply = ModelReply::calls((0..40).map(|_| ("a", json!({"q": "x"}))));
    let Step::CallTools(plans) = next(&rules(&[tool("a")], None), &[], &reply) else {
        panic!("calls were expected");
    };
    assert_eq!(plans.iter().filter_map(refusal).count(), 8);
}

#[test]
fn a_structured_answer_has_to_fit_its_schema_and_may_be_fenced() {
    let rules = rules(&[], number());
    for text in [
        r#"{"n": 3}"#,
        " ```json\n{\"n\": 3}\n``` ",
        "```\n{\"n\":3}```",
    ] {
        let step = next(&rules, &[], &ModelReply::text(text));
        assert_eq!(
            step,
            Step::Finish {
                is_structured: true
            },
            "{text}"
        );
        assert_eq!(structured(text).unwrap(), json!({"n": 3}));
    }
    for (text, part) in [(r#"{"n": "x"}"#, "/n: "), ("three", "it is no JSON")] {
        match next(&rules, &[], &ModelReply::text(text)) {
            Step::AskAgain(objection) => assert!(objection.contains(part), "{objection}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_model_that_never_fits_the_schema_is_given_up() {
    let rules = rules(&[], number());
    let reply = ModelReply::text("three");
    let mut transcript = vec![Message::user("go")];
    for _ in 0..CORRECTIONS_MAX {
        let Step::AskAgain(objection) = next(&rules, &transcript, &reply) else {
            panic!("it is told first");
        };
        transcript.push(Message::assistant("three"));
        transcript.push(Message::user(objection));
    }
    assert!(matches!(
        next(&rules, &transcript, &reply),
        Step::Fail { .. }
    ));
}

#[test]
fn a_reply_that_was_cut_is_asked_for_again_and_one_held_back_fails() {
    let rules = rules(&[], None);
    let cut = ModelReply {
        finish: Finish::Length,
        ..ModelReply::text("and then")
    };
    assert!(matches!(next(&rules, &[], &cut), Step::AskAgain(_)));
    let held_back = ModelReply {
        finish: Finish::Refused,
        ..ModelReply::text("")
    };
    assert!(matches!(next(&rules, &[], &held_back), Step::Fail { .. }));
}

#[test]
fn approval_is_asked_for_on_the_tools_terms_and_only_where_they_apply() {
    let approval = Approval::required()
        .within(Duration::from_secs(60))
        .only_if(|arguments| arguments["q"] == "dear");
    let rules = rules(
        &[tool("buy").needs_approval(approval).unsafe_to_repeat()],
        None,
    );
    let reply = ModelReply::calls([
        ("buy", json!({"q": "dear"})),
        ("buy", json!({"q": "cheap"})),
    ]);
    let Step::CallTools(plans) = next(&rules, &[], &reply) else {
        panic!("calls were expected");
    };
    let asked: Vec<bool> = plans
        .iter()
        .map(|plan| match plan {
            Plan::Run {
                approval,
                is_unsafe_to_repeat,
                ..
            } => {
                assert!(is_unsafe_to_repeat);
                approval.is_some()
            }
            Plan::Refuse(reason) => panic!("{reason}"),
        })
        .collect();
    assert_eq!(asked, [true, false]);
}
