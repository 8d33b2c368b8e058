//! Waiting for several things at once, in an order that is the same at every replay.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What came first of two.
///
/// ```
/// # use mainspring_sdk::{OrchestrationContext, Result};
/// use mainspring_sdk::Either;
///
/// async fn decision(ctx: OrchestrationContext, _: ()) -> Result<String> {
///     let (yes, no) = (ctx.event::<String>("Approved"), ctx.event::<String>("Rejected"));
///     match ctx.select(yes, no).await {
///         Either::Left(by) => Ok(format!("approved by {}", by?)),
///         Either::Right(by) => Ok(format!("rejected by {}", by?)),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// Which futures of a group have to be polled: all at first, then those that were woken.
struct Woken {
    indexes: Mutex<Vec<usize>>,
    parent: Mutex<Option<Waker>>,
}

struct Bell {
    index: usize,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut indexes = lock(&self.woken.indexes);
        indexes.push(self.index);
        drop(indexes);
        let parent = lock(&self.woken.parent).take();
        if let Some(parent) = parent {
            parent.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Futures polled only when something happened to them, so that a thousand of them cost no more than what happens.
struct Group<F> {
    futures: Vec<Option<Pin<Box<F>>>>,
    bells: Vec<Waker>,
    woken: Arc<Woken>,
}

impl<F: Future> Group<F> {
    fn new(futures: impl IntoIterator<Item = F>) -> Self {
        let futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
        let woken = Arc::new(Woken {
            indexes: Mutex::new((0..futures.len()).collect()),
            parent: Mutex::new(None),
        });
        let bells = (0..futures.len())
            .map(|index| {
                Waker::from(Arc::new(Bell {
                    index,
                    woken: Arc::clone(&woken),
                }))
            })
            .collect();
        Self {
            futures,
            bells,
            woken,
        }
    }

    /// Polls what was woken, in that order, until `ready` says that it is enough.
    fn poll_woken(
        &mut self,
        context: &Context<'_>,
        mut ready: impl FnMut(usize, F::Output) -> bool,
    ) {
        *lock(&self.woken.parent) = Some(context.waker().clone());
        loop {
            let indexes = std::mem::take(&mut *lock(&self.woken.indexes));
            if indexes.is_empty() {
                return;
            }
            for (position, &index) in indexes.iter().enumerate() {
                let Some(future) = &mut self.futures[index] else {
                    continue;
                };
                let mut context = Context::from_waker(&self.bells[index]);
                let Poll::Ready(output) = future.as_mut().poll(&mut context) else {
                    continue;
                };
                self.futures[index] = None;
                if ready(index, output) {
                    // The rest is as woken as before, for whoever goes on with it.
                    let mut woken = lock(&self.woken.indexes);
                    woken.splice(0..0, indexes[position + 1..].iter().copied());
                    return;
                }
            }
        }
    }
}

/// All outputs, in the order in which the futures were given.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let unfailing = futures
        .into_iter()
        .map(|future| async move { Ok::<_, Infallible>(future.await) });
    match TryJoinAll::new(unfailing).await {
        Ok(outputs) => outputs,
    }
}

/// Ready with all successes, or with the first failure.
pub(super) struct TryJoinAll<F: Future<Output = Result<T, E>>, T, E> {
    group: Group<F>,
    outputs: Vec<Option<T>>,
    missing: usize,
    error: std::marker::PhantomData<fn() -> E>,
}

impl<F: Future<Output = Result<T, E>>, T, E> Unpin for TryJoinAll<F, T, E> {}

impl<F: Future<Output = Result<T, E>>, T, E> TryJoinAll<F, T, E> {
    pub(super) fn new(futures: impl IntoIterator<Item = F>) -> Self {
        let group = Group::new(futures);
        let missing = group.futures.len();
        Self {
            group,
            outputs: (0..missing).map(|_| None).collect(),
            missing,
            error: std::marker::PhantomData,
        }
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for TryJoinAll<F, T, E> {
    type Output = Result<Vec<T>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            group,
            outputs,
            missing,
            ..
        } = &mut *self;
        let mut failed = None;
        group.poll_woken(context, |index, result| match result {
            Ok(output) => {
                outputs[index] = Some(output);
                *missing -= 1;
                false
            }
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if let Some(error) = failed {
            return Poll::Ready(Err(error));
        }
        if *missing > 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(outputs.drain(..).flatten().collect()))
    }
}

/// Ready with the first one that is, its index, and the others, which go on.
pub(super) struct SelectAll<F: Future> {
    group: Group<F>,
}

impl<F: Future> Unpin for SelectAll<F> {}

impl<F: Future> SelectAll<F> {
    pub(super) fn new(futures: impl IntoIterator<Item = F>) -> Self {
        let group = Group::new(futures);
        assert!(!group.futures.is_empty(), "nothing to select from");
        Self { group }
    }
}

impl<F: Future> Future for SelectAll<F> {
    type Output = (usize, F::Output, Vec<Pin<Box<F>>>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut first = None;
        self.group.poll_woken(context, |index, output| {
            first = Some((index, output));
            true
        });
        match first {
            None => Poll::Pending,
            Some((index, output)) => {
                let rest = self.group.futures.drain(..).flatten().collect();
                Poll::Ready((index, output, rest))
            }
        }
    }
}

/// Ready with the first of two that is; the first one, if both are.
pub(super) async fn select<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = a.as_mut().poll(context) {
            return Poll::Ready(Either::Left(output));
        }
        b.as_mut().poll(context).map(Either::Right)
    })
    .await
}

/// Ready with both outputs.
pub(super) async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |context| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(context)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(context)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}
