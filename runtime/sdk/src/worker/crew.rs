//! Those who do the work: threads for orchestrators, tasks for activities and entities.

use std::hash::{BuildHasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as channel;
use std::thread::available_parallelism;

use futures_util::FutureExt as _;
use mainspring_proto::{
    ActivityRequest, ActivityResponse, EntityBatchResult, EntityRequest, HistoryEvent,
    OrchestratorResponse, StreamInstanceHistoryRequest, WorkItemFilters,
};
use prost::DecodeError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::answer::{Answer, Answered, Kind};
use super::item::{Episode, History, Item, Past, Work};
use super::kept::Kept;
use super::{Counters, OnMismatch, Settings};
use crate::activity::ActivityContext;
use crate::connection::Connection;
use crate::convert::Payloads;
use crate::entity::EntityId;
use crate::error::{Error, Failure};
use crate::orchestration::Outcome;
use crate::registry::Registry;
use crate::replay::{self, Instance, Trouble, panic_text, tells_of_rewind};

/// More orchestrator threads than this gain nothing: replay is a small part of a worker's work.
const THREADS_MAX: usize = 4;

/// Takes items, and gives answers through a channel.
pub(crate) struct Crew {
    threads: Vec<channel::Sender<Errand>>,
    hasher: RandomState,
    shared: Arc<Shared>,
}

/// What all of the crew need.
struct Shared {
    registry: Arc<Registry>,
    connection: Connection,
    payloads: Payloads,
    settings: Settings,
    answers: mpsc::UnboundedSender<Answered>,
    counters: Arc<Counters>,
    runtime: Handle,
}

/// What an orchestrator thread is asked for.
struct Errand {
    token: String,
    episode: Episode,
}

impl Shared {
    /// Tells an answer. If nobody takes answers any more, the worker is gone, and the item is delivered again.
    fn tell(&self, answered: Answered) {
        drop(self.answers.send(answered));
    }
}

impl Crew {
    pub(crate) fn start(
        registry: Arc<Registry>,
        connection: Connection,
        settings: Settings,
        answers: mpsc::UnboundedSender<Answered>,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            registry,
            payloads: connection.payloads().clone(),
            connection,
            settings,
            answers,
            counters,
            runtime: Handle::current(),
        });
        let count = available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
        let kept_max = shared.settings.kept_max.div_ceil(count);
        let threads = (0..count)
            .map(|_| {
                let (errands, received) = channel::channel();
                let bench = Bench {
                    shared: Arc::clone(&shared),
                    kept: Kept::new(kept_max),
                };
                std::thread::Builder::new()
                    .name("orchestrators".to_owned())
                    .spawn(move || bench.work(&received))
                    .map_err(|error| {
                        Error::Setting(format!("no thread can be started: {error}"))
                    })?;
                Ok(errands)
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            threads,
            hasher: RandomState::new(),
            shared,
        })
    }

    pub(crate) fn filters(&self) -> WorkItemFilters {
        self.shared.registry.filters()
    }

    /// Items that are not answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.counters.in_flight.load(Ordering::Acquire)
    }

    /// So many answers were handed to the lane.
    pub(crate) fn answered(&self, count: usize) {
        let in_flight = &self.shared.counters.in_flight;
        in_flight.fetch_sub(count, Ordering::AcqRel);
    }

    /// Sets somebody to work on it.
    pub(crate) fn take(&self, item: Item) {
        self.shared
            .counters
            .in_flight
            .fetch_add(1, Ordering::AcqRel);
        let Item { token, work } = item;
        match work {
            Work::Episode(episode) => {
                let thread = self.hasher.hash_one(&episode.instance) as usize % self.threads.len();
                // A thread ends only with the crew.
                drop(self.threads[thread].send(Errand { token, episode }));
            }
            Work::Activity(request) => {
                let shared = Arc::clone(&self.shared);
                self.shared.runtime.spawn(activity(shared, token, *request));
            }
            Work::Entity(request) => {
                let shared = Arc::clone(&self.shared);
                self.shared.runtime.spawn(entity(shared, token, request));
            }
        }
    }
}

async fn activity(shared: Arc<Shared>, token: String, request: ActivityRequest) {
    let ctx = ActivityContext::new(&request);
    let version = request.version.as_deref().unwrap_or_default();
    let outcome: Outcome = match shared.registry.activity(&request.name, version) {
        None => {
            // Filters say what this worker has, so this is for another one.
            tracing::warn!(
                activity = request.name,
                version,
                "nothing is registered for it"
            );
            return shared.tell(Answered::abandon(token, Kind::Activity));
        }
        Some(handler) => {
            // The handler's own first lines may panic, too.
            let input = request.input.as_deref();
            let started = std::panic::catch_unwind(AssertUnwindSafe(|| {
                handler.start(ctx, input, shared.payloads.clone())
            }));
            let result = match started {
                Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            result.unwrap_or_else(|panic| Err(Failure::new("Panic", panic_text(&*panic))))
        }
    };
    let (result, failure) = match outcome {
        Ok(result) => (result, None),
        Err(failure) => (None, Some(failure.into_details())),
    };
    Counters::add(&shared.counters.activities);
    let response = ActivityResponse {
        instance_id: request
            .orchestration_instance
            .map(|instance| instance.instance_id)
            .unwrap_or_default(),
        task_id: request.task_id,
        result,
        failure_details: failure,
        completion_token: token.clone(),
    };
    shared.tell(Answered {
        token,
        answer: Answer::Activity(response),
    });
}

async fn entity(shared: Arc<Shared>, token: String, request: EntityRequest) {
    let handler = request
        .instance_id
        .parse::<EntityId>()
        .ok()
        .and_then(|id| shared.registry.entity(id.name()));
    let Some(handler) = handler else {
        tracing::warn!(entity = request.instance_id, "nothing is registered for it");
        return shared.tell(Answered::abandon(token, Kind::Entity));
    };
    let result = handler.run(request, shared.payloads.clone()).await;
    Counters::add(&shared.counters.entity_batches);
    shared.tell(Answered {
        answer: Answer::Entity(EntityBatchResult {
            completion_token: token.clone(),
            ..result
        }),
        token,
    });
}

/// One orchestrator thread. No async runtime is entered here, so a future of one fails at once instead of working by chance.
struct Bench {
    shared: Arc<Shared>,
    kept: Kept,
}

impl Bench {
    fn work(mut self, errands: &channel::Receiver<Errand>) {
        while let Ok(Errand { token, episode }) = errands.recv() {
            let kept_before = self.kept.len();
            let answered = self.episode(token, episode);
            self.note_kept(kept_before);
            self.shared.tell(answered);
        }
    }

    fn note_kept(&self, before: usize) {
        let counter = &self.shared.counters.kept;
        let now = self.kept.len();
        if now >= before {
            counter.fetch_add(now - before, Ordering::Relaxed);
        } else {
            counter.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    fn episode(&mut self, token: String, episode: Episode) -> Answered {
        let Episode {
            instance: id,
            execution,
            past,
            new,
        } = episode;
        let kept = self.kept.take(&id, &execution);
        let mut attempt = self.attempt(kept, (&id, &execution), &past, &new, false);
        if matches!(attempt, Err(Setback::Trouble(Trouble::Mismatch(_))))
            && self.was_rewound(&id, &execution)
        {
            attempt = self.attempt(None, (&id, &execution), &past, &new, true);
        }
        let (instance, answer) = match attempt {
            Ok(attempt) => attempt,
            Err(Setback::Unreadable(reason)) => {
                tracing::warn!(instance = id, reason, "the history cannot be read");
                return Answered::abandon(token, Kind::Orchestration);
            }
            Err(Setback::Forgotten) => return Answered::ask_for_history(token, id),
            Err(Setback::Trouble(trouble)) => return self.trouble(token, id, trouble),
        };
        Counters::add(&self.shared.counters.episodes);
        let is_over = answer.is_over;
        let response = OrchestratorResponse {
            instance_id: id.clone(),
            actions: answer.actions,
            custom_status: answer.custom_status,
            completion_token: token.clone(),
            ..Default::default()
        };
        if !is_over {
            self.kept.put(id, execution, instance);
        }
        Answered {
            token,
            answer: Answer::Orchestration(response),
        }
    }

    /// Brings the instance to where its past ends, and runs the episode. `of`: its id and execution id.
    fn attempt(
        &self,
        kept: Option<Instance>,
        of: (&str, &str),
        past: &Past,
        new: &[HistoryEvent],
        is_rewound: bool,
    ) -> Result<(Instance, replay::Answer), Setback> {
        let mut instance = self.resume(kept, of, past, is_rewound)?;
        let answer = instance.episode(new).map_err(Setback::Trouble)?;
        Ok((instance, answer))
    }

    /// Whether the generation began with a rewind: what is sent to workers does not tell (S-9.14), the history that clients see does.
    fn was_rewound(&self, id: &str, execution: &str) -> bool {
        let fetched = self.fetch((id, execution), false);
        fetched.is_ok_and(|history| tells_of_rewind(&history))
    }

    /// The instance as it was after its last episode: the one that was kept, if it is that far, or a new one after a replay.
    fn resume(
        &self,
        kept: Option<Instance>,
        of: (&str, &str),
        past: &Past,
        is_rewound: bool,
    ) -> Result<Instance, Setback> {
        let fetched;
        let history = match past {
            Past::Known(events) => {
                let known = kept.and_then(|mut kept| kept.accepted(*events).then_some(kept));
                return known.ok_or(Setback::Forgotten);
            }
            Past::Events(history) => history,
            Past::Elsewhere => {
                fetched = History::Decoded(self.fetch(of, true)?);
                &fetched
            }
        };
        if let Some(mut instance) = kept
            && is_part_of(&instance, history)?
            // The confirmations of its own last actions.
            && run_through(&mut instance, history).is_ok()
        {
            return Ok(instance);
        }
        let mut instance = Instance::new(
            Arc::clone(&self.shared.registry),
            self.shared.payloads.clone(),
        )
        .rewound(is_rewound);
        if history.len() > 0 {
            Counters::add(&self.shared.counters.replays);
        }
        run_through(&mut instance, history)?;
        Ok(instance)
    }

    /// Asks for a history: as workers are sent it, when it did not fit into the work item (S-3.26), or as clients see it.
    fn fetch(
        &self,
        (id, execution): (&str, &str),
        for_work_item_processing: bool,
    ) -> Result<Vec<HistoryEvent>, Setback> {
        let request = StreamInstanceHistoryRequest {
            instance_id: id.to_owned(),
            execution_id: Some(execution.to_owned()),
            for_work_item_processing,
        };
        let fetched = self.shared.connection.history(request);
        self.shared
            .runtime
            .block_on(fetched)
            .map_err(|status| Setback::Unreadable(status.to_string()))
    }

    fn trouble(&self, token: String, id: String, trouble: Trouble) -> Answered {
        match trouble {
            Trouble::Unknown { name, version } => {
                tracing::warn!(
                    instance = id,
                    orchestration = name,
                    version,
                    "nothing is registered for it"
                );
                Answered::abandon(token, Kind::Orchestration)
            }
            Trouble::Mismatch(mismatch) => {
                Counters::add(&self.shared.counters.mismatches);
                tracing::error!(
                    instance = id,
                    event = mismatch.event,
                    expected = mismatch.expected,
                    found = mismatch.found,
                    "the orchestrator does not do what its history says: it is not deterministic, or was changed"
                );
                match self.shared.settings.on_mismatch {
                    OnMismatch::Abandon => Answered::abandon(token, Kind::Orchestration),
                    OnMismatch::Fail => {
                        let failure =
                            Failure::new("NonDeterminism", mismatch.to_string()).non_retriable();
                        Answered::failed_episode(token, id, failure)
                    }
                }
            }
        }
    }
}

/// Whether a history holds all that an instance has seen, as it has seen it.
fn is_part_of(instance: &Instance, history: &History) -> Result<bool, Setback> {
    match instance.last_episode() {
        Some(position) if instance.seen() <= history.len() => {
            Ok(instance.began_with(&*history.at(position)?))
        }
        _ => Ok(false),
    }
}

/// Runs through what the instance has not seen yet.
fn run_through(instance: &mut Instance, history: &History) -> Result<(), Setback> {
    for position in instance.seen()..history.len() {
        instance
            .replay([&*history.at(position)?])
            .map_err(Setback::Trouble)?;
    }
    Ok(())
}

/// Why an instance cannot go on from where it was.
enum Setback {
    Unreadable(String),
    /// It should be in memory, and is not.
    Forgotten,
    Trouble(Trouble),
}

impl From<DecodeError> for Setback {
    fn from(error: DecodeError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

#[cfg(test)]
mod tests;
