//! Work items as the crew takes them, whichever lane they came over.

use mainspring_proto::{ActivityRequest, EntityRequest, HistoryEvent};

/// One thing to do, and the token that its answer has to carry.
pub(crate) struct Item {
    pub(crate) token: String,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Episode(Episode),
    Activity(Box<ActivityRequest>),
    Entity(EntityRequest),
}

/// An episode of an orchestration.
pub(crate) struct Episode {
    pub(crate) instance: String,
    pub(crate) execution: String,
    pub(crate) past: Past,
    pub(crate) new: Vec<HistoryEvent>,
}

/// What has happened before.
pub(crate) enum Past {
    /// All of it.
    Events(Vec<HistoryEvent>),
    /// To be fetched: there is too much of it for one message.
    Elsewhere,
}
