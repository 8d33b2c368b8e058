//! One life of a process that runs an agent on a folder, for the crash test: `agents_life FOLDER [POINT]`.
//!
//! It starts the run, or goes on with it, plays the person who approves, and ends once the run has. At the given point it kills itself
//! with SIGKILL: `begun:CALL` before a call has its effect, `done:CALL` after it, `durable:CALL` once its result is in the history,
//! `asked` while a person is waited for, `answered` once they have answered. Calls beside it are let come to rest first, so that one call
//! alone is cut short.

#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainspring::{Client, Instance, Reuse, Scheduler};
use mainspring_agents::{
    About, Agent, Answer, Approval, Decision, Deltas, Message, Model, ModelFuture, ModelReply,
    ModelRequest, RegisterAgents as _, Tool, ToolContext, answer, waiting,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

const RUN: &str = "the-run";
const PAUSE: Duration = Duration::from_millis(2);

/// What all calls share.
#[derive(Clone)]
struct Life {
    file: PathBuf,
    point: Option<String>,
    client: Client,
    /// The point was reached: whoever begins now waits for the end.
    is_ending: Arc<AtomicBool>,
    /// Held while the person answers and notes it, so that nobody is killed between.
    person: Arc<Mutex<()>>,
}

impl Life {
    fn is_at(&self, moment: &str, call: &str) -> bool {
        let point = self.point.as_deref();
        point == Some(format!("{moment}:{call}").as_str())
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// As an outside service notes a call that takes effect.
    fn note(&self, line: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.file)
            .unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// A call's whole life; gives `model/1` or the like.
    async fn call(&self, key: &str) -> String {
        let call = name_of(key);
        if self.is_ending.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_at("begun", &call) {
            self.end(&call).await;
        }
        self.note(key);
        if self.is_at("done", &call) {
            self.end(&call).await;
        }
        if self.is_at("durable", &call) {
            self.is_ending.store(true, Ordering::SeqCst);
            let life = self.clone();
            tokio::spawn(async move { life.end("").await });
        }
        call
    }

    /// Ends once the results of all calls but this one are durable.
    async fn end(&self, but: &str) {
        self.is_ending.store(true, Ordering::SeqCst);
        let run: Instance<Answer> = self.client.instance(RUN);
        loop {
            let history = run.history().await.unwrap().to_bytes();
            let history = String::from_utf8_lossy(&history).into_owned();
            let calls = self.calls().into_iter().filter(|line| line.contains('/'));
            let mut others = calls.map(|key| name_of(&key)).filter(|call| call != but);
            if others.all(|call| history.contains(&result_of(&call))) {
                let _person = self.person.lock().await;
                kill();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Approves, and looks after calls that were interrupted.
    async fn play_the_person(self) {
        loop {
            for question in waiting(&self.client).await.unwrap() {
                let decision = match question.about {
                    About::InterruptedCall { .. } => {
                        // They ask the shop.
                        match self.calls().iter().any(|key| name_of(key) == "tool/4") {
                            true => Decision::Result {
                                content: result_of("tool/4"),
                            },
                            false => Decision::Approve,
                        }
                    }
                    _ if self.calls().iter().any(|line| line == "approved") => continue,
                    _ => Decision::Approve,
                };
                if self.point.as_deref() == Some("asked") {
                    kill();
                }
                let is_approval = question.id == "4";
                let _person = self.person.lock().await;
                let answered = answer(&self.client, &question.run, &question.id, &decision).await;
                if answered.is_ok() && is_approval {
                    self.note("approved");
                    if self.point.as_deref() == Some("answered") {
                        kill();
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The last two parts of an idempotency key.
fn name_of(key: &str) -> String {
    let mut parts: Vec<&str> = key.rsplit('/').take(2).collect();
    parts.reverse();
    parts.join("/")
}

/// By which a result is found in the history.
fn result_of(call: &str) -> String {
    format!("[result of {call}]")
}

fn kill() -> ! {
    let process = std::process::id().to_string();
    let _ = std::process::Command::new("kill")
        .args(["-9", &process])
        .status();
    std::process::abort()
}

impl Model for Life {
    fn reply<'a>(&'a self, request: &'a ModelRequest, _: &'a dyn Deltas) -> ModelFuture<'a> {
        Box::pin(async move {
            let result = result_of(&self.call(&request.idempotency_key).await);
            let messages = request.messages.iter();
            let said = messages.filter(|message| matches!(message, Message::Assistant { .. }));
            let calls = match said.count() {
                0 => vec![("search", json!({}))],
                1 => vec![("search", json!({})), ("search", json!({}))],
                2 => vec![("buy", json!({}))],
                // Does not fit the schema, so it is asked for again.
                3 => return Ok(ModelReply::text(result)),
                _ => return Ok(ModelReply::text(json!({ "done": result }).to_string())),
            };
            Ok(ModelReply {
                text: result,
                ..ModelReply::calls(calls)
            })
        })
    }
}

fn tool(name: &str, life: &Life) -> Tool {
    let life = life.clone();
    Tool::with_schema(
        name,
        "",
        json!({"type": "object"}),
        move |ctx: ToolContext, _: Value| {
            let life = life.clone();
            async move { Ok::<_, String>(result_of(&life.call(ctx.idempotency_key()).await)) }
        },
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("a folder is needed")?;
    let scheduler = Scheduler::open(Path::new(&folder).join("data")).await?;
    let life = Life {
        file: Path::new(&folder).join("calls"),
        point: arguments.next(),
        client: scheduler.client(),
        is_ending: Arc::default(),
        person: Arc::default(),
    };
    let agent = Agent::builder("shopper", life.clone())
        .tool(tool("search", &life))
        .tool(
            tool("buy", &life)
                .unsafe_to_repeat()
                .needs_approval(Approval::required()),
        )
        .output_schema(json!({"type": "object", "required": ["done"]}))
        .build()?;
    let _worker = scheduler.worker().agents([agent.clone()]).start()?;
    let client = scheduler.client();
    let run: Instance<Answer> = client.instance(RUN);
    if run.state().await?.is_none() {
        agent
            .start(&client, "go")
            .id(RUN)
            .reuse(Reuse::Never)
            .await?;
    }
    let person = tokio::spawn(life.clone().play_the_person());
    let answer = run.result().await?;
    if life.point.is_some() {
        // The last result is durable; somebody is about to see it.
        std::future::pending::<()>().await;
    }
    assert_eq!(answer.output, Some(json!({ "done": result_of("model/5") })));
    person.abort();
    // Dropped, which is as safe as a crash.
    Ok(())
}
