//! The scheduler's only readers of time and randomness.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mainspring_core::id::FreshIds;
use mainspring_core::time::Timestamp;
use tokio::sync::watch;

/// What a scheduler takes for the time: when timers are due, what history says. Cheap to clone.
///
/// A virtual one stands still until it is told to move, by [`VirtualTime`](crate::VirtualTime). Leases, pings, back-offs and
/// graces are about processes and do not follow it.
///
/// ```
/// use mainspring_core::time::Timestamp;
/// use mainspring_host::Clock;
///
/// let clock = Clock::standing_at(Timestamp::new(1_000, 0));
/// assert_eq!(clock.now(), Timestamp::new(1_000, 0));
/// assert!(Clock::default().now() > clock.now());
/// ```
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Virtual>>);

/// A time that is told to move.
struct Virtual {
    now: Mutex<Timestamp>,
    /// Something may have become of what was waited for; see [`Clock::stir`].
    stirred: watch::Sender<()>,
}

impl Virtual {
    fn now(&self) -> MutexGuard<'_, Timestamp> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// The time of this machine.
    pub fn system() -> Self {
        Self(None)
    }

    /// A virtual one.
    pub fn standing_at(now: Timestamp) -> Self {
        Self(Some(Arc::new(Virtual {
            // Timers are due at whole microseconds, so only those can be met.
            now: Mutex::new(Timestamp::from_micros(now.micros_down())),
            stirred: watch::Sender::new(()),
        })))
    }

    /// The time by this clock.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => machine_time(),
            Some(time) => *time.now(),
        }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        self.0.is_some()
    }

    /// Moves a virtual clock; never back.
    pub(crate) fn move_to(&self, to: Timestamp) {
        if let Some(time) = &self.0 {
            let mut now = time.now();
            *now = to.max(*now);
        }
    }

    /// Wakes those who wait until a scheduler under virtual time comes to rest. By the machine's time nobody does, and this is nothing.
    pub(crate) fn stir(&self) {
        if let Some(time) = &self.0 {
            time.stirred.send_replace(());
        }
    }

    /// Hears of every [`Clock::stir`] from now on; `None` by the machine's time.
    pub(crate) fn listen(&self) -> Option<watch::Receiver<()>> {
        self.0.as_ref().map(|time| time.stirred.subscribe())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => formatter.write_str("Clock(system)"),
            Some(time) => write!(formatter, "Clock({:?})", *time.now()),
        }
    }
}

/// The time of this machine, for what must rise whatever the scheduler takes for the time.
pub(crate) fn machine_time() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp::new(since.as_secs() as i64, i64::from(since.subsec_nanos())),
        Err(before) => Timestamp::new(-(before.duration().as_secs() as i64), 0),
    }
}

/// Unguessable 128-bit numbers from the operating system, drawn in blocks: one system call serves 256 of them.
pub struct RandomIds;

const BLOCK_BYTES: usize = 4096;

thread_local! {
    /// Random bytes that this thread has not used yet.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl FreshIds for RandomIds {
    fn next(&mut self) -> u128 {
        BLOCK.with_borrow_mut(|block| {
            if block.len() < 16 {
                block.resize(BLOCK_BYTES, 0);
                getrandom::fill(block).expect("the operating system provides random numbers");
            }
            let at = block.len() - 16;
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&block[at..]);
            block.truncate(at);
            u128::from_le_bytes(bytes)
        })
    }
}
