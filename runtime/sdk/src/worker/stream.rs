//! The lane of the work stream: items come and answers go over one stream, in batches. A receipt tells that an answer is on disk;
//! answers without one when the stream breaks are sent as calls.

use std::collections::HashMap;

use mainspring_proto::v1::{self, Abandon, Answers, Open, Receipt, ToScheduler, to_scheduler};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

use super::answer::{Answer, Answered, Kind};
use super::item::Item;
use super::{LaneEnd, Shift, published, stopped};

/// What one message holds at most. A larger answer goes alone.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Longest answer that is sent: far above what the scheduler takes, so it is the scheduler that says why; but above what it reads, the
/// stream would break.
const ANSWER_BYTES_MAX: usize = 127 << 20;

/// `None`: the scheduler has no work stream.
pub(super) async fn run(shift: &mut Shift) -> Option<LaneEnd> {
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let open = Open {
        options: Some(shift.options()),
        keeps_instances: shift.settings.kept_max > 0,
    };
    let mut lane = Lane {
        outbox: Some(outbox),
        unconfirmed: HashMap::new(),
        last_number: 0,
    };
    lane.say(to_scheduler::Message::Open(open));
    let request = (shift.connection).request(UnboundedReceiverStream::new(outgoing));
    let mut incoming = match shift.connection.work_stream().work(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return None,
        Err(status) => {
            let was_of_use = false;
            return Some(LaneEnd::Lost { status, was_of_use });
        }
    };
    let mut stopping = shift.stopping.clone();
    let mut is_stopping = false;
    let mut was_of_use = false;
    let mut answered = Vec::new();
    let status = loop {
        tokio::select! {
            biased;
            _ = shift.answered.recv_many(&mut answered, BATCH_MAX) => {
                shift.crew.answered(answered.len());
                lane.answer(answered.drain(..));
            }
            message = incoming.message() => match message {
                Ok(Some(message)) => {
                    was_of_use = true;
                    for item in message.items {
                        let read = item.item.and_then(|work| Item::read(work, item.kept_events));
                        if let Some(item) = read {
                            shift.crew.take(item);
                        }
                    }
                    lane.confirm(message.receipts);
                }
                Ok(None) if is_stopping => break None,
                Ok(None) => break Some(Status::unavailable("the stream ended")),
                Err(status) => break Some(status),
            },
            () = stopped(&mut stopping), if !is_stopping => {
                is_stopping = true;
                lane.say(to_scheduler::Message::NoMore(v1::NoMore {}));
            }
        }
        if is_stopping && lane.unconfirmed.is_empty() && shift.crew.in_flight() == 0 {
            // Half-closed, so that the scheduler ends the stream.
            lane.outbox = None;
        }
    };
    for answered in lane.unconfirmed.into_values() {
        published::call_later(shift, answered).await;
    }
    if let Some(status) = status.filter(|_| !is_stopping) {
        return Some(LaneEnd::Lost { status, was_of_use });
    }
    published::calls_ended(shift).await;
    Some(LaneEnd::Stopped)
}

/// What goes out over one stream, and has no receipt yet.
struct Lane {
    /// `None`: closed. As long as what the scheduler has handed out and has no answer for.
    outbox: Option<mpsc::UnboundedSender<ToScheduler>>,
    unconfirmed: HashMap<u64, Answered>,
    last_number: u64,
}

impl Lane {
    /// If nobody takes it, the stream is broken, which its other direction tells.
    fn say(&self, message: to_scheduler::Message) {
        if let Some(outbox) = &self.outbox {
            let message = Some(message);
            drop(outbox.send(ToScheduler { message }));
        }
    }

    fn answer(&mut self, answered: impl Iterator<Item = Answered>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for answered in answered {
            self.last_number += 1;
            let number = self.last_number;
            let (mut answered, mut answer) = (answered.clone(), message(number, answered));
            let mut length = answer.encoded_len();
            if length > ANSWER_BYTES_MAX {
                answered = in_place_of(&answered, length);
                answer = message(number, answered.clone());
                length = answer.encoded_len();
            }
            if bytes + length > BATCH_BYTES_MAX {
                self.send(&mut batch);
                bytes = 0;
            }
            bytes += length;
            batch.push(answer);
            self.unconfirmed.insert(self.last_number, answered);
        }
        self.send(&mut batch);
    }

    fn send(&self, batch: &mut Vec<v1::Answer>) {
        if !batch.is_empty() {
            let answers = std::mem::take(batch);
            self.say(to_scheduler::Message::Answers(Answers { answers }));
        }
    }

    fn confirm(&mut self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            let Some(answered) = self.unconfirmed.remove(&receipt.number) else {
                continue;
            };
            if receipt.code == Code::Ok as i32 {
                continue;
            }
            let code = Code::from_i32(receipt.code);
            let instead = answered.instead_of_refused(code, &receipt.message);
            self.answer(instead.into_iter());
        }
    }
}

/// The item failed, or given back, when its answer has too many bytes to be sent.
fn in_place_of(answered: &Answered, length: usize) -> Answered {
    let reason = format!("the answer has {length} bytes; {ANSWER_BYTES_MAX} are the most");
    tracing::error!(reason, "an answer cannot be sent");
    let failed = answered.too_large(&reason);
    failed.unwrap_or_else(|| Answered::abandon(answered.token.clone(), Kind::Entity))
}

fn message(number: u64, answered: Answered) -> v1::Answer {
    use v1::answer::Answer as Said;
    let abandon = |kind: v1::WorkKind| {
        Said::Abandon(Abandon {
            kind: kind as i32,
            completion_token: answered.token,
        })
    };
    let said = match answered.answer {
        Answer::Orchestration(response) => Said::Orchestration(response),
        Answer::Activity(response) => Said::Activity(response),
        Answer::Entity(result) => Said::Entity(result),
        Answer::Abandon(Kind::Orchestration) => abandon(v1::WorkKind::Orchestration),
        Answer::Abandon(Kind::Activity) => abandon(v1::WorkKind::Activity),
        Answer::Abandon(Kind::Entity) => abandon(v1::WorkKind::Entity),
    };
    v1::Answer {
        number,
        answer: Some(said),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring_proto::{ActivityResponse, EntityBatchResult};

    use super::*;

    fn lane() -> (Lane, mpsc::UnboundedReceiver<ToScheduler>) {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let lane = Lane {
            outbox: Some(outbox),
            unconfirmed: HashMap::new(),
            last_number: 0,
        };
        (lane, outgoing)
    }

    fn activity(bytes: usize) -> Answered {
        Answered {
            token: "t".to_owned(),
            answer: Answer::Activity(ActivityResponse {
                result: Some("x".repeat(bytes)),
                ..Default::default()
            }),
        }
    }

    fn sent(outgoing: &mut mpsc::UnboundedReceiver<ToScheduler>) -> Vec<Vec<v1::Answer>> {
        std::iter::from_fn(|| outgoing.try_recv().ok())
            .map(|message| match message.message {
                Some(to_scheduler::Message::Answers(answers)) => answers.answers,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn answers_are_sent_together_as_long_as_they_are_small() {
        let (mut lane, mut outgoing) = lane();
        let sizes = [10, 20, BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX, 5];
        lane.answer(sizes.into_iter().map(activity));
        let sent = sent(&mut outgoing);
        let numbers: Vec<Vec<u64>> = sent
            .iter()
            .map(|answers| answers.iter().map(|answer| answer.number).collect())
            .collect();
        assert_eq!(numbers, [vec![1, 2, 3], vec![4], vec![5]]);
    }

    #[test]
    fn an_answer_that_cannot_be_sent_fails_its_item_or_gives_it_back() {
        let (mut lane, mut outgoing) = lane();
        let entity = Answered {
            token: "t".to_owned(),
            answer: Answer::Entity(EntityBatchResult {
                entity_state: Some("x".repeat(ANSWER_BYTES_MAX)),
                ..Default::default()
            }),
        };
        lane.answer([activity(ANSWER_BYTES_MAX), entity].into_iter());
        let sent = sent(&mut outgoing).concat();
        let [failed, given_back] = &sent[..] else {
            panic!("{} answers", sent.len());
        };
        let Some(v1::answer::Answer::Activity(response)) = &failed.answer else {
            panic!("not an activity");
        };
        let failure = response.failure_details.as_ref().unwrap();
        assert_eq!(failure.error_type, "PayloadTooLarge");
        assert!(matches!(
            given_back.answer,
            Some(v1::answer::Answer::Abandon(_))
        ));
    }

    #[test]
    fn a_refused_answer_is_given_again_as_a_failure_and_others_are_not() {
        let (mut lane, mut outgoing) = lane();
        lane.answer([activity(1), activity(2), activity(3)].into_iter());
        sent(&mut outgoing);
        let receipt = |number, code: Code| Receipt {
            number,
            code: code as i32,
            message: "no".to_owned(),
        };
        lane.confirm(vec![
            receipt(2, Code::InvalidArgument),
            receipt(3, Code::Unavailable),
            receipt(1, Code::Ok),
        ]);
        let sent = sent(&mut outgoing).concat();
        assert_eq!(sent.len(), 1);
        assert_eq!(lane.unconfirmed.into_keys().collect::<Vec<_>>(), [4]);
    }
}
