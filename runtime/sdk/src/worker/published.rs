//! The lane of the published protocol: items on a stream, each answer a call of its own.

use std::sync::Arc;
use std::time::Duration;

use mainspring_proto::{
    AbandonActivityTaskRequest, AbandonEntityTaskRequest, AbandonOrchestrationTaskRequest,
};
use tonic::{Code, Status};

use super::answer::{Answer, Answered, Kind};
use super::item::Item;
use super::{LaneEnd, Shift, stopped};
use crate::connection::Connection;

/// Calls on their way at once; further answers wait.
pub(super) const CALLS_MAX: usize = 256;

/// How often an answer is sent while the scheduler is away, and the pauses between.
const TRIES_MAX: u32 = 12;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(shift: &mut Shift) -> LaneEnd {
    let mut was_of_use = false;
    let request = shift.connection.request(shift.options());
    let opened = shift.connection.items().get_work_items(request).await;
    let mut items = match opened {
        Ok(response) => response.into_inner(),
        Err(status) => return LaneEnd::Lost { status, was_of_use },
    };
    let mut stopping = shift.stopping.clone();
    let end = loop {
        tokio::select! {
            biased;
            Some(answered) = shift.answered.recv() => {
                send(shift, answered).await;
            }
            () = stopped(&mut stopping) => break None,
            item = items.message() => match item {
                Ok(Some(item)) => {
                    was_of_use = true;
                    if let Some(item) = Item::read(item, 0) {
                        shift.crew.take(item);
                    }
                }
                Ok(None) => break Some(Status::unavailable("the stream ended")),
                Err(status) => break Some(status),
            },
        }
    };
    if let Some(status) = end {
        return LaneEnd::Lost { status, was_of_use };
    }
    // Nothing new comes without the stream; what is being worked on is answered before its grace is over.
    drop(items);
    while shift.crew.in_flight() > 0 {
        match shift.answered.recv().await {
            Some(answered) => send(shift, answered).await,
            None => break,
        }
    }
    calls_ended(shift).await;
    LaneEnd::Stopped
}

/// Ready once no answer is on its way any more.
pub(super) async fn calls_ended(shift: &Shift) {
    drop(shift.calls.acquire_many(CALLS_MAX as u32).await);
}

async fn send(shift: &Shift, answered: Answered) {
    shift.crew.answered(1);
    call_later(shift, answered).await;
}

/// Sends an answer by a call of its own, as soon as there is room for one.
pub(super) async fn call_later(shift: &Shift, answered: Answered) {
    let permit = Arc::clone(&shift.calls)
        .acquire_owned()
        .await
        .expect("it is never closed");
    let connection = shift.connection.clone();
    tokio::spawn(async move {
        deliver(&connection, answered).await;
        drop(permit);
    });
}

/// Sends an answer until it is taken. What cannot be sent is delivered again by the scheduler.
async fn deliver(connection: &Connection, mut answered: Answered) {
    let mut pause = PAUSE_MIN;
    for _ in 0..TRIES_MAX {
        let Err(status) = call(connection, &answered).await else {
            return;
        };
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::DeadlineExceeded => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            code => match answered.instead_of_refused(code, status.message()) {
                Some(failed) => answered = failed,
                None => return,
            },
        }
    }
    tracing::warn!("an answer could not be sent; the scheduler delivers the item again");
}

async fn call(connection: &Connection, answered: &Answered) -> Result<(), Status> {
    let mut service = connection.service();
    let completion_token = answered.token.clone();
    match answered.answer.clone() {
        Answer::Orchestration(response) => service
            .complete_orchestrator_task(connection.request(response))
            .await
            .map(drop),
        Answer::Activity(response) => service
            .complete_activity_task(connection.request(response))
            .await
            .map(drop),
        Answer::Entity(result) => service
            .complete_entity_task(connection.request(result))
            .await
            .map(drop),
        Answer::Abandon(Kind::Orchestration) => service
            .abandon_task_orchestrator_work_item(
                connection.request(AbandonOrchestrationTaskRequest { completion_token }),
            )
            .await
            .map(drop),
        Answer::Abandon(Kind::Activity) => service
            .abandon_task_activity_work_item(
                connection.request(AbandonActivityTaskRequest { completion_token }),
            )
            .await
            .map(drop),
        Answer::Abandon(Kind::Entity) => service
            .abandon_task_entity_work_item(
                connection.request(AbandonEntityTaskRequest { completion_token }),
            )
            .await
            .map(drop),
    }
}
