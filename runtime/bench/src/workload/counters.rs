//! W3: counters, as entities. Signals are measured when they are accepted and when they are applied, calls from start to
//! answer. In the end no operation may be missing and none applied twice.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::{Bench, Plan, Way};
use crate::client::Client;
use crate::driver::{self, Pace};
use crate::report::Report;
use crate::worker::{ADD, ADD_BY_CALL, COUNTER};

/// Operations of a loop that is not ended by its time before.
const COUNT_MAX: usize = 100_000;

/// What was accepted has to be applied this long after the last of it.
const APPLIED_WITHIN: Duration = Duration::from_secs(60);

/// Name, keys and operations outstanding of each loop.
const LOADS: [(&str, u64, usize); 3] = [
    ("hot", 1, 64),
    ("10k", 10_000, 64),
    ("10k.c512", 10_000, 512),
];

/// Signals and calls under each load, every loop on counters of its own.
pub async fn measure(plan: &Plan, way: Way, report: &mut Report) -> anyhow::Result<()> {
    let mut bench = Bench::start(plan, way).await?;
    bench.warm_up(plan).await?;
    for (load, keys, outstanding) in LOADS {
        let pace = Pace {
            outstanding,
            count: COUNT_MAX,
            limit: plan.limit,
        };
        let name = way.name(&format!("W3.send.{load}"));
        send(&mut bench, &Counters { name, keys }, pace, report).await?;
    }
    for (load, keys, outstanding) in LOADS {
        let pace = Pace {
            outstanding,
            count: COUNT_MAX,
            limit: plan.limit,
        };
        let name = way.name(&format!("W3.call.{load}"));
        call(&bench, &Counters { name, keys }, pace, report).await?;
    }
    bench.stop().await
}

/// The counters of one loop.
#[derive(Clone)]
struct Counters {
    name: String,
    keys: u64,
}

impl Counters {
    /// In front of every counter's key.
    fn prefix(&self) -> String {
        format!("@{COUNTER}@{}-", self.name)
    }

    /// The key of the n-th operation, and the id of its counter. Keys are spread evenly, in no order.
    fn of(&self, number: usize) -> (u64, String) {
        let key = xxh3_64(&number.to_le_bytes()) % self.keys;
        (key, format!("{}{key}", self.prefix()))
    }

    /// Proves that every operation was applied exactly once.
    async fn check_sum(&self, bench: &Bench, expected: usize) -> anyhow::Result<()> {
        let mut client = bench.connect()().await?;
        let mut sum = 0;
        for state in client.entity_states(&self.prefix()).await? {
            let value: usize = state
                .parse()
                .with_context(|| format!("a counter's state is {state:?}"))?;
            sum += value;
        }
        ensure!(
            sum == expected,
            "{}: {expected} operations ended, the counters say {sum}",
            self.name
        );
        Ok(())
    }
}

async fn send(
    bench: &mut Bench,
    counters: &Counters,
    pace: Pace,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = &counters.name;
    let applied_before = *bench.applied.borrow_and_update();
    let meter = bench.meter();
    let begun = Instant::now();
    let outcome = {
        let counters = counters.clone();
        let signal = async move |client: &mut Client, number: usize| {
            let (_, counter) = counters.of(number);
            client.signal(counter, ADD, 1, number).await
        };
        driver::run(bench.connect(), pace, signal).await?
    };
    let accepted = outcome.count();
    let mut applied = bench.applied.clone();
    let all_applied = applied.wait_for(|applied| *applied >= applied_before + accepted as u64);
    timeout(APPLIED_WITHIN, all_applied)
        .await
        .with_context(|| format!("{name}: signals are still not applied"))?
        .context("the worker has ended")?;
    let applied_rate = accepted as f64 / begun.elapsed().as_secs_f64();
    report.add(name, "accepted", outcome.rate(), "1/s");
    report.add(name, "p50", outcome.quantile_ms(0.50), "ms");
    report.add(name, "p99", outcome.quantile_ms(0.99), "ms");
    report.add(name, "n", accepted as f64, "ops");
    report.add(name, "applied", applied_rate, "1/s");
    meter.add_to(report, name, accepted);
    counters.check_sum(bench, accepted).await
}

/// A client cannot call an entity: it starts an orchestration that does, and waits for its output.
async fn call(
    bench: &Bench,
    counters: &Counters,
    pace: Pace,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = &counters.name;
    let answers = Rc::new(RefCell::new(Vec::new()));
    let meter = bench.meter();
    let outcome = {
        let (counters, answers) = (counters.clone(), Rc::clone(&answers));
        let call = async move |client: &mut Client, number: usize| {
            let (key, counter) = counters.of(number);
            let output = client.run(ADD_BY_CALL, &counter).await?;
            let answer: u64 = output
                .parse()
                .with_context(|| format!("{counter} answered {output:?}"))?;
            answers.borrow_mut().push((key, answer));
            Ok(())
        };
        driver::run(bench.connect(), pace, call).await?
    };
    report.add(name, "ops", outcome.rate(), "1/s");
    report.add(name, "p50", outcome.quantile_ms(0.50), "ms");
    report.add(name, "p99", outcome.quantile_ms(0.99), "ms");
    report.add(name, "n", outcome.count() as f64, "ops");
    meter.add_to(report, name, outcome.count());
    check_answers(answers.take()).context(name.clone())?;
    counters.check_sum(bench, outcome.count()).await
}

/// Proves that the callers of each counter were answered 1, 2, 3 and so on, each number once.
fn check_answers(mut answers: Vec<(u64, u64)>) -> anyhow::Result<()> {
    answers.sort_unstable();
    for of_one_key in answers.chunk_by(|one, other| one.0 == other.0) {
        for (expected, (key, answer)) in (1..).zip(of_one_key) {
            ensure!(
                *answer == expected,
                "counter {key} answered {answer}, not {expected}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_counter_are_right_if_each_number_came_once_whatever_the_order() {
        assert!(check_answers(vec![(7, 2), (3, 1), (7, 1), (7, 3)]).is_ok());
        assert!(check_answers(vec![(7, 1), (7, 1)]).is_err());
        assert!(check_answers(vec![(7, 1), (7, 3)]).is_err());
    }

    #[test]
    fn operations_are_spread_over_all_keys() {
        let counters = Counters {
            name: "W3.send.10k".to_owned(),
            keys: 100,
        };
        let mut seen = [0; 100];
        for number in 0..10_000 {
            let (key, id) = counters.of(number);
            assert_eq!(id, format!("@counter@W3.send.10k-{key}"));
            seen[key as usize] += 1;
        }
        assert!(seen.iter().all(|times| (50..200).contains(times)));
    }
}
