//! Limits of runs and sessions, and what happens at them.

#![allow(clippy::unwrap_used)]

mod stage;

use std::time::Duration;

use mainspring_agents::{
    About, Agent, Approval, Ask, AtLimit, Budget, Decision, Ended, Limit, ModelReply, Price,
    ScriptedModel, SessionClient,
};

use stage::{Calls, Stage, query};

/// Never has enough.
fn insatiable() -> ScriptedModel {
    ScriptedModel::by(|_| {
        let reply = ModelReply::calls([("search", query("more")), ("search", query("more"))]);
        Ok(ModelReply {
            text: "so far".to_owned(),
            ..reply.costing(90, 10)
        })
    })
}

fn agent(calls: &Calls, budget: Budget) -> Agent {
    Agent::builder("finder", insatiable())
        .tool(calls.tool("search"))
        .budget(budget)
        .price(Price {
            input_micros: 1_000_000,
            output_micros: 10_000_000,
        })
        .build()
        .unwrap()
}

fn at(at_limit: AtLimit) -> Budget {
    Budget {
        at_limit,
        ..Budget::unlimited()
    }
}

/// Has an hour, and a tool that needs approval.
fn agent_for_an_hour(calls: &Calls, model: ScriptedModel, at_limit: AtLimit) -> Agent {
    let budget = Budget {
        elapsed: Some(Duration::from_secs(3600)),
        ..at(at_limit)
    };
    Agent::builder("finder", model)
        .tool(calls.tool("search").needs_approval(Approval::required()))
        .budget(budget)
        .build()
        .unwrap()
}

#[tokio::test]
async fn each_limit_ends_a_run_with_what_there_is_if_that_is_wanted() {
    let finish = || at(AtLimit::Finish);
    for (budget, limit, model_calls, tool_calls) in [
        (
            Budget {
                model_calls: Some(3),
                ..finish()
            },
            Limit::ModelCalls,
            3,
            6,
        ),
        (
            Budget {
                tool_calls: Some(5),
                ..finish()
            },
            Limit::ToolCalls,
            3,
            4,
        ),
        (
            Budget {
                tokens: Some(250),
                ..finish()
            },
            Limit::Tokens,
            3,
            6,
        ),
        // 190 a call.
        (
            Budget {
                money_micros: Some(300),
                ..finish()
            },
            Limit::Money,
            2,
            4,
        ),
    ] {
        let calls = Calls::default();
        let agent = agent(&calls, budget);
        let stage = Stage::with(&[&agent]).await;
        let answer = stage.ask(&agent, "go").await;
        assert_eq!(
            (answer.text.as_str(), answer.ended),
            ("so far", Ended::AtLimit(limit))
        );
        let spent = (answer.spent.model_calls, answer.spent.tool_calls);
        assert_eq!(spent, (model_calls, tool_calls), "{limit}");
        assert_eq!(calls.queries().len(), tool_calls as usize);
    }
}

#[tokio::test]
async fn a_run_fails_at_its_limit_unless_told_otherwise() {
    let calls = Calls::default();
    let agent = agent(&calls, Budget::unlimited());
    let stage = Stage::with(&[&agent]).await;
    let budget = Budget {
        model_calls: Some(2),
        ..Budget::default()
    };
    let (error_type, message) = stage.failure(&agent, Ask::new("go").budget(budget)).await;
    assert_eq!(error_type, "BudgetSpent");
    assert!(
        message.contains("the run's limit of model calls"),
        "{message}"
    );
}

#[tokio::test]
async fn a_person_allows_as_much_again_as_often_as_asked() {
    let calls = Calls::default();
    let budget = Budget {
        model_calls: Some(2),
        ..at(AtLimit::AskPerson)
    };
    let agent = agent(&calls, budget);
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "go").await;
    for rounds in [2, 4, 6] {
        let open = stage.waiting().await;
        let About::Budget {
            limit,
            is_of_session,
            spent,
        } = &open[0].about
        else {
            panic!("{open:?}");
        };
        assert_eq!((*limit, *is_of_session), (Limit::ModelCalls, false));
        assert_eq!(spent.model_calls, rounds);
        assert_eq!(calls.queries().len(), 2 * rounds as usize);
        if rounds < 6 {
            stage.decide(Decision::Approve).await;
        }
    }
    let enough = "enough".to_owned();
    stage.decide(Decision::Reject { reason: enough }).await;
    let error = stage.scheduler.finish(&run).await.unwrap_err().to_string();
    assert!(
        error.contains("a person does not allow more: enough"),
        "{error}"
    );
}

#[tokio::test]
async fn elapsed_time_ends_a_run_that_waits() {
    let calls = Calls::default();
    let agent = agent_for_an_hour(&calls, insatiable(), AtLimit::Finish);
    let stage = Stage::with(&[&agent]).await;
    let began = stage.scheduler.now();
    let answer = stage.ask(&agent, "go").await;
    assert_eq!(answer.ended, Ended::AtLimit(Limit::Elapsed));
    let elapsed = stage.scheduler.now().duration_since(began).unwrap();
    assert_eq!(elapsed.as_secs(), 3600);
}

#[tokio::test]
async fn what_was_on_its_way_when_the_time_was_over_goes_on_if_a_person_allows_it() {
    let calls = Calls::default();
    let model = ScriptedModel::new([
        ModelReply::calls([("search", query("a"))]),
        ModelReply::text("done"),
    ]);
    let agent = agent_for_an_hour(&calls, model, AtLimit::AskPerson);
    let stage = Stage::with(&[&agent]).await;
    let run = stage.start(&agent, "go").await;
    stage.advance(3600).await;
    let open = stage.waiting().await;
    assert_eq!(open.len(), 2, "{open:?}");
    for question in open.iter().rev() {
        let client = stage.client();
        mainspring_agents::answer(&client, run.id(), &question.id, &Decision::Approve)
            .await
            .unwrap();
        stage.scheduler.settle().await.unwrap();
    }
    assert_eq!(stage.scheduler.finish(&run).await.unwrap().text, "done");
}

#[tokio::test]
async fn a_sessions_budget_is_spent_by_all_of_its_runs_together() {
    let model = ScriptedModel::by(|_| Ok(ModelReply::text("yes").costing(90, 10)));
    let budget = Budget {
        tokens: Some(250),
        ..Budget::unlimited()
    };
    let agent = Agent::builder("host", model)
        .session_budget(budget)
        .build()
        .unwrap();
    let stage = Stage::with(&[&agent]).await;
    let ask = || Ask::new("well?").session("s");
    for _ in 0..3 {
        stage.ask(&agent, ask()).await;
    }
    let (_, message) = stage.failure(&agent, ask()).await;
    assert!(
        message.contains("the session's limit of tokens"),
        "{message}"
    );
    // Another session has all of it.
    stage.ask(&agent, Ask::new("well?").session("t")).await;
    let info = SessionClient::new(&stage.client(), "s")
        .info()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(info.spent.usage.tokens(), 300);
}
