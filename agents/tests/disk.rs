//! How much a scheduler on a folder writes for a run, and how much of it stays: in proportion to the number of its model calls.
//!
//! Alone in its process, since the bytes that it has written are asked of the system. It does not say how fast that is.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use mainspring::Scheduler;
use mainspring_agents::{
    Agent, Ask, Budget, Message, ModelReply, RegisterAgents as _, ScriptedModel, Tool, ToolContext,
};
use serde_json::{Value, json};

const RESULT_BYTES: usize = 8000;

/// Bytes that this process has handed to the system.
fn written() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().parse().unwrap()
}

fn on_disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => on_disk(&entry.path()),
                false => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            }
        })
        .sum()
}

/// What a run of so many model calls writes, and leaves.
async fn costs(calls: usize) -> (u64, u64) {
    let model = ScriptedModel::by(move |request| {
        let seen = request.messages.iter();
        let replies = seen.filter(|message| matches!(message, Message::Assistant { .. }));
        Ok(match replies.count() + 1 < calls {
            true => ModelReply::calls([("dig", json!({}))]),
            false => ModelReply::text("done"),
        })
    });
    // Nothing that a store could press together.
    let dig = |ctx: ToolContext, _: Value| async move {
        let mut state = ctx.idempotency_key().bytes().fold(7u64, |state, byte| {
            state.wrapping_mul(31).wrapping_add(byte.into())
        });
        let letters = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'a' + (state >> 60) as u8)
        });
        Ok::<String, String>(letters.take(RESULT_BYTES).collect())
    };
    let agent = Agent::builder("digger", model)
        .tool(Tool::with_schema("dig", "", json!({"type": "object"}), dig))
        .budget(Budget::unlimited())
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let before = written();
    let scheduler = Scheduler::open(folder.path()).await.unwrap();
    let worker = scheduler.worker().agents([agent.clone()]).start().unwrap();
    let ask = Ask::new("dig").session("s");
    let run = agent.start(&scheduler.client(), ask).await.unwrap();
    assert_eq!(run.result().await.unwrap().text, "done");
    worker.stop().await;
    scheduler.close().await.unwrap();
    (written() - before, on_disk(folder.path()))
}

#[tokio::test]
async fn twice_the_model_calls_write_and_leave_twice_the_bytes() {
    let mut costs_of = Vec::new();
    for calls in [50, 100, 200] {
        let (written, on_disk) = costs(calls).await;
        println!("{calls} model calls: {written} bytes written, {on_disk} on disk");
        costs_of.push((written as f64, on_disk as f64));
    }
    // Of growth, so that what a scheduler writes for itself does not count.
    let written = (costs_of[2].0 - costs_of[1].0) / (costs_of[1].0 - costs_of[0].0);
    let on_disk = (costs_of[2].1 - costs_of[1].1) / (costs_of[1].1 - costs_of[0].1);
    assert!((1.6..2.4).contains(&written), "{costs_of:?}");
    assert!((1.6..2.4).contains(&on_disk), "{costs_of:?}");
    // Of 200 transcripts in 200 inputs this would be the hundredfold.
    let said = (200 * RESULT_BYTES) as f64;
    assert!(costs_of[2].0 < 10.0 * said, "{costs_of:?}");
}
