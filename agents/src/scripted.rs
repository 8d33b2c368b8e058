//! A model for tests: replies that are written down beforehand, and a record of what it was asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::message::Message;
use crate::model::{
    Deltas, Model, ModelError, ModelErrorKind, ModelFuture, ModelReply, ModelRequest,
};

/// How many requests are remembered; older ones are forgotten.
const REQUESTS_MAX: usize = 1024;

/// A model whose replies are fixed, for tests. Cheap to clone; all clones are one.
///
/// Which reply it gives depends on the transcript alone: the first to one without assistant messages, the second to one with one, and so
/// on. So it says the same to a request that is sent again, also in a process that was restarted meanwhile.
///
/// ```
/// use mainspring_agents::{ModelReply, ScriptedModel};
/// use serde_json::json;
///
/// let model = ScriptedModel::new([
///     ModelReply::calls([("weather", json!({"city": "Oslo"}))]),
///     ModelReply::text("It rains."),
/// ]);
/// assert!(model.requests().is_empty());
/// ```
#[derive(Clone)]
pub struct ScriptedModel {
    script: Arc<Script>,
}

type Answer = dyn Fn(&ModelRequest) -> Result<ModelReply, ModelError> + Send + Sync;

struct Script {
    answer: Box<Answer>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    requests: Vec<ModelRequest>,
    /// Errors still to be given instead of a reply, by the reply's index.
    errors: BTreeMap<usize, Vec<ModelError>>,
}

impl fmt::Debug for ScriptedModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.record().requests.len();
        write!(formatter, "ScriptedModel(asked {asked} times)")
    }
}

impl ScriptedModel {
    /// One with these replies. Asked for more, it refuses.
    pub fn new(replies: impl IntoIterator<Item = ModelReply>) -> Self {
        let replies: Vec<ModelReply> = replies.into_iter().collect();
        Self::by(move |request| {
            let index = replies_in(&request.messages);
            replies.get(index).cloned().ok_or_else(|| {
                let count = replies.len();
                ModelError::new(
                    ModelErrorKind::Rejected,
                    format!("the script has {count} replies, and reply {index} was asked for"),
                )
            })
        })
    }

    /// One that answers by this function, which should look at nothing but the request.
    pub fn by(
        answer: impl Fn(&ModelRequest) -> Result<ModelReply, ModelError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(Script {
                answer: Box::new(answer),
                record: Mutex::default(),
            }),
        }
    }

    /// Before it gives the reply of this index (from 0), it fails with these errors, one at each try.
    #[must_use]
    pub fn failing(self, index: usize, errors: impl IntoIterator<Item = ModelError>) -> Self {
        let errors = errors.into_iter().collect();
        self.record().errors.insert(index, errors);
        self
    }

    /// What it was asked, oldest first; the last 1,024 of it.
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.record().requests.clone()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        let record = &self.script.record;
        record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &ModelRequest) -> Result<ModelReply, ModelError> {
        let index = replies_in(&request.messages);
        {
            let mut record = self.record();
            if record.requests.len() == REQUESTS_MAX {
                record.requests.remove(0);
            }
            record.requests.push(request.clone());
            if let Some(errors) = record.errors.get_mut(&index)
                && !errors.is_empty()
            {
                return Err(errors.remove(0));
            }
        }
        (self.script.answer)(request)
    }
}

fn replies_in(messages: &[Message]) -> usize {
    let replies = messages.iter();
    replies
        .filter(|message| matches!(message, Message::Assistant { .. }))
        .count()
}

impl Model for ScriptedModel {
    fn reply<'a>(&'a self, request: &'a ModelRequest, deltas: &'a dyn Deltas) -> ModelFuture<'a> {
        let answer = self.answer(request);
        if let Ok(reply) = &answer {
            deltas.delta(&reply.text);
        }
        Box::pin(std::future::ready(answer))
    }
}
