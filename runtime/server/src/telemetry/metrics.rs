//! Names, units and meanings of the metrics: one table.

use std::time::Duration;

use mainspring_core::orchestration::Status;
use mainspring_host::{Distribution, Ended, Found, Snapshot, WorkKind, WorkSnapshot};

/// What a value measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things, by what one is called.
    Count(&'static str),
    /// Seconds; distributions come in nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A label and its value.
pub(crate) type Label = (&'static str, &'static str);

/// One series of a family: its labels and what it says.
pub(crate) type Series<T> = (Vec<Label>, T);

/// The series of one metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    /// Rises while the process lives.
    Counter(Vec<Series<u64>>),
    /// How things stand.
    Gauge(Vec<Series<f64>>),
    /// How values were distributed since the process started.
    Distribution(Vec<Series<Distribution>>),
}

/// One metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Family {
    /// Words with dots between them, without unit.
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) help: &'static str,
    pub(crate) values: Values,
}

/// Every metric of a server.
pub(crate) fn families(snapshot: Snapshot) -> Vec<Family> {
    let family = |name, unit, help, values| Family {
        name,
        unit,
        help,
        values,
    };
    let mut families = work(&snapshot.work);
    families.extend([
        family(
            "mainspring.workers.connected",
            Unit::Count("worker"),
            "Open streams of work items",
            gauge(snapshot.workers as f64),
        ),
        family(
            "mainspring.orchestrations.started",
            Unit::Count("orchestration"),
            "Orchestrations started, restarted or rewound",
            counter(snapshot.started),
        ),
        family(
            "mainspring.orchestrations.continued",
            Unit::Count("generation"),
            "Generations begun by continue-as-new",
            counter(snapshot.continued),
        ),
        family(
            "mainspring.orchestrations.ended",
            Unit::Count("orchestration"),
            "Orchestrations ended, by status",
            Values::Counter(
                snapshot
                    .ended
                    .map(|(status, count)| (vec![("status", status_name(status))], count))
                    .into(),
            ),
        ),
        family(
            "mainspring.activities.ended",
            Unit::Count("activity"),
            "Activities whose outcome was taken",
            outcomes(snapshot.activities),
        ),
        family(
            "mainspring.entity.operations.ended",
            Unit::Count("operation"),
            "Operations of entities that were done",
            outcomes(snapshot.operations),
        ),
        family(
            "mainspring.turn.duration",
            Unit::Seconds,
            "From the first decision in a batch of turns until it is durable and performed",
            distribution(snapshot.turns),
        ),
        family(
            "mainspring.commit.duration",
            Unit::Seconds,
            "From the first write of a group of batches until it is synced",
            distribution(snapshot.commits),
        ),
        family(
            "mainspring.commit.group.size",
            Unit::Count("batch"),
            "Batches that shared a sync",
            distribution(snapshot.groups),
        ),
        family(
            "mainspring.timer.lateness",
            Unit::Seconds,
            "How much later than due a timer fired",
            distribution(snapshot.lateness),
        ),
        family(
            "mainspring.activations",
            Unit::Count("instance"),
            "Instances and entities in memory",
            gauge(snapshot.activations as f64),
        ),
        family(
            "mainspring.cache.lookups",
            Unit::Count("lookup"),
            "Looks for state of instances, and for chunks of history, that may be in memory",
            lookups(snapshot.warm, snapshot.history),
        ),
        family(
            "mainspring.cache.usage",
            Unit::Bytes,
            "Memory that cached state and history take",
            gauge(snapshot.cache_bytes as f64),
        ),
        family(
            "mainspring.store.size",
            Unit::Bytes,
            "Disk that the store takes",
            gauge(snapshot.store_bytes as f64),
        ),
        family(
            "mainspring.disk.free",
            Unit::Bytes,
            "Disk that is left below the data folder",
            Values::Gauge(
                snapshot
                    .disk_free_bytes
                    .map(|bytes| (Vec::new(), bytes as f64))
                    .into_iter()
                    .collect(),
            ),
        ),
        family(
            "mainspring.build.info",
            Unit::Count("server"),
            "Always 1; says which version runs",
            Values::Gauge(vec![(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)]),
        ),
    ]);
    families
}

/// Work items, kind by kind.
fn work(work: &[WorkSnapshot]) -> Vec<Family> {
    let kind = |of: &WorkSnapshot| vec![("kind", kind_name(of.kind))];
    let gauges = |value: fn(&WorkSnapshot) -> f64| {
        Values::Gauge(work.iter().map(|of| (kind(of), value(of))).collect())
    };
    let counters = |value: fn(&WorkSnapshot) -> u64| {
        Values::Counter(work.iter().map(|of| (kind(of), value(of))).collect())
    };
    let distributions = |value: fn(&WorkSnapshot) -> Option<&Distribution>| {
        let series = work
            .iter()
            .filter_map(|of| Some((kind(of), value(of)?.clone())));
        Values::Distribution(series.collect())
    };
    let family = |name, unit, help, values| Family {
        name,
        unit,
        help,
        values,
    };
    vec![
        family(
            "mainspring.work_items.pending",
            Unit::Count("item"),
            "Work items that no worker has",
            gauges(|of| of.in_hand.pending as f64),
        ),
        family(
            "mainspring.work_items.pending.age",
            Unit::Seconds,
            "How long the oldest work item that waits for a worker has waited",
            gauges(|of| seconds(of.in_hand.pending_age)),
        ),
        family(
            "mainspring.work_items.active",
            Unit::Count("item"),
            "Work items that are with a worker",
            gauges(|of| of.in_hand.active as f64),
        ),
        family(
            "mainspring.work_items.active.age",
            Unit::Seconds,
            "How long the oldest work item that is with a worker has been there",
            gauges(|of| seconds(of.in_hand.active_age)),
        ),
        family(
            "mainspring.work_items.dispatched",
            Unit::Count("item"),
            "Work items handed to workers, repetitions included",
            counters(|of| of.dispatched),
        ),
        family(
            "mainspring.work_items.returned",
            Unit::Count("item"),
            "Work items that came to nothing with a worker and were delivered again",
            counters(|of| of.returned),
        ),
        family(
            "mainspring.work_item.wait",
            Unit::Seconds,
            "From being ready to being handed to a worker",
            distributions(|of| Some(&of.waits)),
        ),
        family(
            "mainspring.work_item.lease",
            Unit::Seconds,
            "From being handed to a worker to being answered",
            distributions(|of| Some(&of.leases)),
        ),
        family(
            "mainspring.mailbox.depth",
            Unit::Count("message"),
            "Messages that waited when an episode or a batch was made of them",
            distributions(|of| of.messages.as_ref()),
        ),
    ]
}

fn gauge(value: f64) -> Values {
    Values::Gauge(vec![(Vec::new(), value)])
}

fn counter(value: u64) -> Values {
    Values::Counter(vec![(Vec::new(), value)])
}

fn distribution(value: Distribution) -> Values {
    Values::Distribution(vec![(Vec::new(), value)])
}

fn outcomes(ended: Ended) -> Values {
    let of = |outcome, count| (vec![("outcome", outcome)], count);
    Values::Counter(vec![
        of("completed", ended.completed),
        of("failed", ended.failed),
    ])
}

fn lookups(warm: Found, history: Found) -> Values {
    let of = |of, result, count| (vec![("of", of), ("result", result)], count);
    Values::Counter(vec![
        of("state", "hit", warm.hits),
        of("state", "miss", warm.misses),
        of("history", "hit", history.hits),
        of("history", "miss", history.misses),
    ])
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn kind_name(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Orchestration => "orchestration",
        WorkKind::Entity => "entity",
        WorkKind::Activity => "activity",
    }
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Canceled => "canceled",
        Status::Terminated => "terminated",
        Status::Pending => "pending",
        Status::Suspended => "suspended",
    }
}
