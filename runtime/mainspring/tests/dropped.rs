//! A test scheduler that is dropped leaves nothing behind. Alone in its process: threads of others would be counted, too.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use mainspring::testing::TestScheduler;
use mainspring::{OrchestrationContext, Result};

async fn trial(ctx: OrchestrationContext, _: ()) -> Result<()> {
    ctx.timer(Duration::from_secs(86_400)).await;
    Ok(())
}

/// Threads of this process by name, which the system cuts short.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names = names.map(|name| name.trim().to_owned());
    names
        .filter(|name| {
            ["mainspring", "committer", "orchestrators"]
                .iter()
                .any(|own| name.starts_with(own))
        })
        .collect()
}

#[tokio::test]
async fn a_scheduler_that_is_dropped_leaves_no_thread_whatever_is_under_way() {
    for _ in 0..3 {
        let scheduler = TestScheduler::start().await.unwrap();
        let worker = scheduler.worker().orchestration(trial).start().unwrap();
        let client = scheduler.client();
        let instance = client.start(trial, ()).await.unwrap();
        scheduler.settle().await.unwrap();
        assert!(!threads().is_empty());
        drop(scheduler);
        // Whoever asks now is told, and not kept waiting.
        assert!(client.hello().await.is_err());
        drop((worker, instance));
    }
    let since = Instant::now();
    while !threads().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", threads());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
