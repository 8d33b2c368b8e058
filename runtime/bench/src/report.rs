//! Figures as rows and as a table, alone or beside a rival's.
//!
//! A row is `workload metric value unit`. The rival's rows carry our names where the work is the same. W1 it may do a
//! second time, as calls of another handler, which is nearest to activities: those rows are called `W1calls`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;

/// What our work is compared with.
#[derive(Clone, Copy, PartialEq)]
enum Counterpart {
    /// The rival's work of the same name.
    SameName,
    /// For W1, the rival's `W1calls`.
    Calls,
}

impl Counterpart {
    const ALL: [Self; 2] = [Self::SameName, Self::Calls];

    fn label(self) -> &'static str {
        match self {
            Self::SameName => "rival",
            Self::Calls => "W1calls",
        }
    }

    /// The rival's name for a workload of ours, if it has this counterpart.
    fn name(self, workload: &str) -> Option<String> {
        let (work, load) = workload.split_once('.').unwrap_or((workload, ""));
        // In whichever way we do it, the rival has one.
        let way = ["remote", "embedded"];
        let work = way
            .iter()
            .find_map(|way| work.strip_suffix(way))
            .unwrap_or(work);
        match self {
            Self::SameName if load.is_empty() => Some(work.to_owned()),
            Self::SameName => Some(format!("{work}.{load}")),
            Self::Calls => (work == "W1").then(|| format!("W1calls.{load}")),
        }
    }
}

/// Units in which less is better; in all others the ratio is ours to theirs.
const LESS_IS_BETTER: [&str; 4] = ["ms", "us", "B", "MiB"];

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    workload: String,
    metric: String,
    value: f64,
    unit: String,
}

/// Figures of all runs, in the order in which they were first taken.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure of one run.
    pub fn add(&mut self, workload: &str, metric: &str, value: f64, unit: &str) {
        self.rows.push(Row {
            workload: workload.to_owned(),
            metric: metric.to_owned(),
            value,
            unit: unit.to_owned(),
        });
    }

    /// The median of each figure over the runs.
    pub fn medians(&self) -> Vec<Row> {
        medians(&self.rows)
    }
}

fn medians(rows: &[Row]) -> Vec<Row> {
    let mut medians: Vec<Row> = Vec::new();
    for row in rows {
        if medians.iter().any(|seen| is_same_figure(seen, row)) {
            continue;
        }
        let mut values: Vec<f64> = rows
            .iter()
            .filter(|other| is_same_figure(other, row))
            .map(|other| other.value)
            .collect();
        medians.push(Row {
            value: median(&mut values),
            ..row.clone()
        });
    }
    medians
}

fn is_same_figure(one: &Row, other: &Row) -> bool {
    one.workload == other.workload && one.metric == other.metric
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// Reads a rival's rows, one file for each of its runs, and returns their medians.
pub fn read_rows(files: &[PathBuf]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        rows.extend(text.lines().filter_map(parse));
    }
    Ok(medians(&rows))
}

/// Lines that are no figures, such as the rival's version, are passed over.
fn parse(line: &str) -> Option<Row> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [workload, metric, value, unit] = columns.as_slice() else {
        return None;
    };
    Some(Row {
        workload: (*workload).to_owned(),
        metric: (*metric).to_owned(),
        value: value.parse().ok()?,
        unit: (*unit).to_owned(),
    })
}

/// How many times better our figure is than the rival's, if the rival has one that can be compared.
fn ratio(ours: &Row, rival: &[Row], counterpart: Counterpart) -> Option<f64> {
    if !is_comparable(ours) {
        return None;
    }
    let name = counterpart.name(&ours.workload)?;
    let theirs = rival
        .iter()
        .find(|row| row.workload == name && row.metric == ours.metric && row.unit == ours.unit)?
        .value;
    let (better, worse) = if LESS_IS_BETTER.contains(&ours.unit.as_str()) {
        (theirs, ours.value)
    } else {
        (ours.value, theirs)
    };
    (worse > 0.0).then_some(better / worse)
}

/// Counts and shares say nothing when divided by a rival's, and what worker and driver cost is not the server's merit.
fn is_comparable(row: &Row) -> bool {
    let of_the_server = !["cpu_worker_per_op", "cpu_driver_per_op"].contains(&row.metric.as_str());
    of_the_server && !["ops", "calls", "workflows", "cores"].contains(&row.unit.as_str())
}

/// Rows for machines; ratios follow their figure with the unit `times`.
pub fn rows(ours: &[Row], rival: &[Row]) -> String {
    let mut text = String::new();
    for row in ours {
        let _ = writeln!(
            text,
            "{} {} {} {}",
            row.workload,
            row.metric,
            number(row.value),
            row.unit
        );
        for counterpart in Counterpart::ALL {
            if let Some(ratio) = ratio(row, rival, counterpart) {
                let metric = format!("{}_against_{}", row.metric, counterpart.label());
                let _ = writeln!(text, "{} {metric} {} times", row.workload, number(ratio));
            }
        }
    }
    text
}

/// A Markdown table for people, with the rival's columns if there is one.
pub fn table(ours: &[Row], rival: &[Row]) -> String {
    let mut text = String::from("| workload | metric | median | unit |");
    let mut rule = String::from("\n|---|---|--:|---|");
    if !rival.is_empty() {
        for counterpart in Counterpart::ALL {
            let _ = write!(text, " against {} |", counterpart.label());
            rule.push_str("--:|");
        }
    }
    text.push_str(&rule);
    text.push('\n');
    for row in ours {
        let value = number(row.value);
        let _ = write!(
            text,
            "| {} | {} | {value} | {} |",
            row.workload, row.metric, row.unit
        );
        if !rival.is_empty() {
            for counterpart in Counterpart::ALL {
                let cell = ratio(row, rival, counterpart)
                    .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
                let _ = write!(text, " {cell} |");
            }
        }
        text.push('\n');
    }
    text
}

/// Three digits of which none is noise.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Vec<Row> {
        medians(&text.lines().filter_map(parse).collect::<Vec<_>>())
    }

    #[test]
    fn medians_of_odd_and_even_numbers_of_runs() {
        let odd = read("W1.c1 p50 9 ms\nW1.c1 p50 1 ms\nW1.c1 p50 2 ms\n");
        assert_eq!(odd, read("W1.c1 p50 2 ms"));
        let even = read("W1.c1 p50 9 ms\nW1.c1 p50 1 ms\n");
        assert_eq!(even, read("W1.c1 p50 5 ms"));
    }

    #[test]
    fn a_ratio_above_one_means_we_are_better_whatever_the_unit() {
        let rival = read(
            "META version 1.0 -\nW1.c1 p50 10 ms\nW1.c1 steps 100 1/s\nW1calls.c1 steps 50 1/s\n",
        );
        let ours = read("W1.c1 p50 5 ms\nW1.c1 steps 200 1/s\nW1.c1 n 7 ops\n");
        assert_eq!(
            rows(&ours, &rival),
            "W1.c1 p50 5.00 ms\nW1.c1 p50_against_rival 2.00 times\nW1.c1 steps 200 1/s\n\
             W1.c1 steps_against_rival 2.00 times\nW1.c1 steps_against_W1calls 4.00 times\nW1.c1 n 7.00 ops\n",
        );
    }

    #[test]
    fn each_way_is_compared_with_the_rivals_only_one() {
        let rival = read("W1.c1 steps 100 1/s\nW3.send.hot p50 300 ms\n");
        let ours = read("W1embedded.c1 steps 800 1/s\nW3remote.send.hot p50 100 ms\n");
        assert_eq!(
            rows(&ours, &rival),
            "W1embedded.c1 steps 800 1/s\nW1embedded.c1 steps_against_rival 8.00 times\n\
             W3remote.send.hot p50 100 ms\nW3remote.send.hot p50_against_rival 3.00 times\n",
        );
    }

    #[test]
    fn work_other_than_w1_is_compared_once() {
        let rival = read("W3.send.hot p50 300 ms\n");
        let table = table(&read("W3.send.hot p50 100 ms\n"), &rival);
        assert_eq!(
            table.lines().last().unwrap(),
            "| W3.send.hot | p50 | 100 | ms | 3.00 |  |"
        );
    }

    #[test]
    fn only_the_servers_costs_are_compared() {
        let rival = read("W2.1x1000 cpu_server_per_op 9 us\nW2.1x1000 cpu_worker_per_op 9 us\n");
        let ours = read("W2.1x1000 cpu_server_per_op 3 us\nW2.1x1000 cpu_worker_per_op 3 us\n");
        assert_eq!(
            rows(&ours, &rival),
            "W2.1x1000 cpu_server_per_op 3.00 us\nW2.1x1000 cpu_server_per_op_against_rival 3.00 times\n\
             W2.1x1000 cpu_worker_per_op 3.00 us\n",
        );
    }
}
