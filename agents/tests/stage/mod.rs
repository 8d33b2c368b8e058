//! A scheduler under virtual time with agents on it, and a tool that remembers how it was called.

#![allow(clippy::unwrap_used, dead_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainspring::testing::{FinishError, TestScheduler};
use mainspring::{Client, Instance, RunningWorker};
use mainspring_agents::{
    Agent, Answer, Ask, Decision, Question, RegisterAgents as _, Tool, ToolContext, answer, waiting,
};
use serde::Deserialize;
use serde_json::Value;

/// Where a test plays.
pub struct Stage {
    pub scheduler: TestScheduler,
    _worker: RunningWorker,
}

impl Stage {
    pub async fn with(agents: &[&Agent]) -> Self {
        let scheduler = TestScheduler::start().await.unwrap();
        let agents = agents.iter().map(|agent| (*agent).clone());
        let worker = scheduler.worker().agents(agents).start().unwrap();
        Self {
            scheduler,
            _worker: worker,
        }
    }

    pub fn client(&self) -> Client {
        self.scheduler.client()
    }

    pub async fn start(&self, agent: &Agent, ask: impl Into<Ask>) -> Instance<Answer> {
        agent.start(&self.client(), ask).await.unwrap()
    }

    /// Runs it to its end, through whatever time it takes.
    pub async fn try_ask(&self, agent: &Agent, ask: impl Into<Ask>) -> Result<Answer, FinishError> {
        let run = self.start(agent, ask).await;
        self.scheduler.finish(&run).await
    }

    pub async fn ask(&self, agent: &Agent, ask: impl Into<Ask>) -> Answer {
        self.try_ask(agent, ask).await.unwrap()
    }

    /// The failure of a run that is to fail: its type and its text.
    pub async fn failure(&self, agent: &Agent, ask: impl Into<Ask>) -> (String, String) {
        match self.try_ask(agent, ask).await {
            Err(FinishError::Ended(mainspring::Error::Orchestration { failure, .. })) => (
                failure.error_type().to_owned(),
                failure.message().to_owned(),
            ),
            other => panic!("it did not fail: {other:?}"),
        }
    }

    /// What waits for people, once nothing happens by itself any more.
    pub async fn waiting(&self) -> Vec<Question> {
        self.scheduler.settle().await.unwrap();
        waiting(&self.client()).await.unwrap()
    }

    /// Answers the only question that is open.
    pub async fn decide(&self, decision: Decision) {
        let open = self.waiting().await;
        assert_eq!(open.len(), 1, "{open:?}");
        let question = &open[0];
        answer(&self.client(), &question.run, &question.id, &decision)
            .await
            .unwrap();
    }

    pub async fn advance(&self, seconds: u64) {
        let by = Duration::from_secs(seconds);
        self.scheduler.advance(by).await.unwrap();
    }
}

/// Idempotency keys and arguments of the calls of a tool, oldest first.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<(String, String)>>>);

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Query {
    pub q: String,
}

impl Calls {
    /// A tool that gives `found {q}`.
    pub fn tool(&self, name: &str) -> Tool {
        self.tool_that(name, |query| Ok(format!("found {}", query.q)))
    }

    pub fn tool_that(
        &self,
        name: &str,
        outcome: impl Fn(&Query) -> Result<String, String> + Send + Sync + 'static,
    ) -> Tool {
        let calls = self.clone();
        Tool::new(
            name,
            "Finds things.",
            move |ctx: ToolContext, query: Query| {
                let call = (ctx.idempotency_key().to_owned(), query.q.clone());
                calls.0.lock().unwrap().push(call);
                std::future::ready(outcome(&query))
            },
        )
    }

    pub fn keys(&self) -> Vec<String> {
        let calls = self.0.lock().unwrap();
        calls.iter().map(|(key, _)| key.clone()).collect()
    }

    /// What was asked for.
    pub fn queries(&self) -> Vec<String> {
        let calls = self.0.lock().unwrap();
        calls.iter().map(|(_, query)| query.clone()).collect()
    }
}

/// Arguments of such a tool.
pub fn query(q: &str) -> Value {
    serde_json::json!({ "q": q })
}
