//! The committer: the one thread that writes.
//!
//! It takes all submissions that wait, writes each, syncs once, and then tells every submitter, in order. So a sync is shared
//! by as many commits as arrived during the sync before: no lingering when there is little to do, large groups under load.
//! Nothing is told before it is durable. The disk makes this thread wait, sometimes for tenths of a second; nobody else
//! waits with it.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Batch, Error, Histogram, Store};

/// Told when a submission is durable, with its commit number, or refused by a fence. Runs on the committer's thread: it hands
/// the news on and returns.
pub type Done = Box<dyn FnOnce(Result<u64, Error>) + Send>;

/// Submissions written before one sync, at most. Beyond some hundreds a larger group gains nothing, and its first member
/// would wait for the last.
const GROUP_MAX: usize = 4_096;

/// With nothing to write for this long, the store is asked to sync once more, so that its bookkeeping catches up.
const REST: Duration = Duration::from_millis(500);

/// Upper bounds of the times of a group, in nanoseconds: a sync takes tenths of a millisecond, and now and then tenths of a second.
const TIMES: [u64; 14] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// Upper bounds of the sizes of a group, up to the largest.
const SIZES: [u64; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];

/// How groups of commits went: one value each for every sync that made something durable.
#[derive(Debug)]
pub struct Groups {
    /// From the first write of a group until it is durable, in nanoseconds.
    pub times: Histogram,
    /// Commits in a group.
    pub sizes: Histogram,
}

enum Submission {
    Write(Batch, Done),
    Stop,
}

/// Handle to the committer's thread. Clones share it.
#[derive(Clone)]
pub struct Committer {
    submissions: Sender<Submission>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    groups: Arc<Groups>,
}

impl Committer {
    /// Starts the thread. `on_fatal` is called once, on that thread, when a write or a sync fails or a callback panics: the
    /// process then has to stop, since neither the store nor memory tells any more what is durable.
    pub fn start(store: Arc<dyn Store>, on_fatal: Box<dyn Fn(Error) + Send + Sync>) -> Self {
        let (submissions, waiting) = channel();
        let groups = Arc::new(Groups {
            times: Histogram::new(&TIMES),
            sizes: Histogram::new(&SIZES),
        });
        let noted = Arc::clone(&groups);
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || {
                let worked = catch_unwind(AssertUnwindSafe(|| run(&*store, &waiting, &noted)));
                let failure = match worked {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error,
                    Err(panic) => Error::Panicked(panic_text(&*panic).to_owned()),
                };
                on_fatal(failure);
            })
            .expect("a thread can be started while the process starts");
        Self {
            submissions,
            thread: Arc::new(Mutex::new(Some(thread))),
            groups,
        }
    }

    /// How groups of commits went so far.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Hands a batch over. Never waits: the queue has no bound of its own, its length is bounded by the credits that callers
    /// give their clients.
    ///
    /// `done` is called in the order of submissions: with the commit number once the batch is durable, with `Fenced` when the
    /// batch is of a former epoch. An empty batch is a barrier: its `done` says that everything submitted before is durable.
    /// After [`Committer::stop`] `done` is dropped without being called. What a fatal error caught is neither called nor dropped:
    /// nobody knows whether it will be found.
    pub fn submit(&self, batch: Batch, done: Done) {
        // A committer that has ended drops the submission, which is what its documentation says.
        let _ = self.submissions.send(Submission::Write(batch, done));
    }

    /// Like [`Committer::stop`], but does not wait for the thread's end.
    pub fn end(&self) {
        let _ = self.submissions.send(Submission::Stop);
    }

    /// Writes and syncs everything submitted so far, tells the submitters, and ends the thread. Later submissions of other
    /// handles are dropped. Not to be called from a `done` callback.
    pub fn stop(self) {
        let _ = self.submissions.send(Submission::Stop);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic was handed to `on_fatal` already.
            let _ = thread.join();
        }
    }
}

fn run(store: &dyn Store, waiting: &Receiver<Submission>, groups: &Groups) -> Result<(), Error> {
    // After a failure nobody is told anything, neither yes nor no: what was written may be found after a restart, or not.
    // Dropping a callback would tell its caller that nothing was applied (S-1.13), so they are kept until the process ends.
    let mut told = ManuallyDrop::new(Vec::new());
    let mut rested = true;
    loop {
        let first = if rested {
            waiting.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            waiting.recv_timeout(REST)
        };
        let mut next = match first {
            Ok(submission) => Some(submission),
            Err(RecvTimeoutError::Timeout) => {
                store.sync()?;
                rested = true;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut stopping = false;
        let began = Instant::now();
        while let Some(submission) = next {
            let Submission::Write(batch, done) = submission else {
                stopping = true;
                break;
            };
            match store.write(&batch) {
                Ok(commit) => told.push((done, Ok(commit))),
                Err(fenced @ Error::Fenced { .. }) => told.push((done, Err(fenced))),
                Err(fatal) => {
                    std::mem::forget(done);
                    return Err(fatal);
                }
            }
            next = (told.len() < GROUP_MAX)
                .then(|| waiting.try_recv().ok())
                .flatten();
        }
        store.sync()?;
        if !told.is_empty() {
            groups.times.note_time(began.elapsed());
            groups.sizes.note(told.len() as u64);
        }
        for (done, result) in told.drain(..) {
            done(result);
        }
        if stopping {
            return Ok(());
        }
        rested = false;
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests;
