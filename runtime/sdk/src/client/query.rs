//! Many instances at once: looking for them, and deleting them.

use std::time::{Duration, SystemTime};

use mainspring_proto::purge_instances_request::Request as PurgeRequest;
use mainspring_proto::{
    InstanceQuery as WireQuery, PurgeInstanceFilter, PurgeInstancesRequest, QueryInstancesRequest,
};

use super::{Client, InstanceState, Status, question_deadline};
use crate::error::Error;
use crate::time::timestamp;

/// Which instances are looked for; the default asks for all.
///
/// ```no_run
/// # use mainspring_sdk::{Client, Result};
/// use mainspring_sdk::{InstanceQuery, Status};
///
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let query = InstanceQuery {
///     statuses: vec![Status::Failed],
///     id_prefix: Some("order-".to_owned()),
///     ..InstanceQuery::default()
/// };
/// for order in client.instances(query).await?.instances {
///     println!("{}: {:?}", order.id, order.failure);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct InstanceQuery {
    /// In one of these statuses; empty: in any.
    pub statuses: Vec<Status>,
    /// Whose id begins so.
    pub id_prefix: Option<String>,
    /// Created at or after.
    pub created_from: Option<SystemTime>,
    /// Created at or before.
    pub created_to: Option<SystemTime>,
    /// Without inputs, outputs and custom status.
    pub without_payloads: bool,
    /// Instances a page; 0: the scheduler's choice.
    pub page_size: u32,
    /// Where the last page ended.
    pub continue_from: Option<String>,
}

/// One page of instances.
///
/// ```no_run
/// # use mainspring_sdk::{Client, InstanceQuery, Result};
/// # async fn run(client: Client, mut query: InstanceQuery) -> Result<(), mainspring_sdk::Error> {
/// loop {
///     let page = client.instances(query.clone()).await?;
///     for instance in page.instances {
///         println!("{} is {}", instance.id, instance.status);
///     }
///     if page.continue_from.is_none() {
///         break;
///     }
///     query.continue_from = page.continue_from;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InstancePage {
    /// In order of their creation.
    pub instances: Vec<InstanceState>,
    /// To be given for the next page; `None`: this was the last.
    pub continue_from: Option<String>,
}

/// Which ended instances are deleted; the default means all of them.
///
/// ```no_run
/// # use mainspring_sdk::{Client, Result};
/// use std::time::{Duration, SystemTime};
/// use mainspring_sdk::{Purge, Status};
///
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let month = Duration::from_secs(30 * 86_400);
/// let purge = Purge {
///     statuses: vec![Status::Completed],
///     created_to: Some(SystemTime::now() - month),
///     ..Purge::default()
/// };
/// client.purge(purge).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Purge {
    /// In one of these statuses; empty: in any that is terminal.
    pub statuses: Vec<Status>,
    /// Created at or after.
    pub created_from: Option<SystemTime>,
    /// Created at or before.
    pub created_to: Option<SystemTime>,
    /// Stops when exceeded.
    pub within: Option<Duration>,
}

/// What was deleted.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mainspring_sdk::{Client, Purge, Result};
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let purge = Purge { within: Some(Duration::from_secs(10)), ..Purge::default() };
/// loop {
///     let purged = client.purge(purge.clone()).await?;
///     println!("{} deleted", purged.count);
///     if purged.is_complete {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// How many instances.
    pub count: u32,
    /// False: it was cut short by its time.
    pub is_complete: bool,
}

impl Client {
    /// One page of instances that match.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses, or is away for longer than ten seconds.
    pub async fn instances(&self, query: InstanceQuery) -> Result<InstancePage, Error> {
        let wire = WireQuery {
            runtime_status: query.statuses.into_iter().map(Status::wire).collect(),
            created_time_from: query.created_from.map(timestamp),
            created_time_to: query.created_to.map(timestamp),
            max_instance_count: i32::try_from(query.page_size).unwrap_or(i32::MAX),
            continuation_token: query.continue_from,
            instance_id_prefix: query.id_prefix,
            fetch_inputs_and_outputs: !query.without_payloads,
            ..Default::default()
        };
        let response = self
            .patiently(question_deadline(), || async {
                let query = Some(wire.clone());
                let request = self.connection.request(QueryInstancesRequest { query });
                self.connection.service().query_instances(request).await
            })
            .await?
            .into_inner();
        let payloads = self.connection.payloads();
        Ok(InstancePage {
            instances: response
                .orchestration_state
                .into_iter()
                .map(|state| InstanceState::new(state, payloads.clone()))
                .collect(),
            continue_from: response
                .continuation_token
                .filter(|token| !token.is_empty()),
        })
    }

    /// Deletes ended instances that match, with their histories.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses.
    pub async fn purge(&self, purge: Purge) -> Result<Purged, Error> {
        let filter = PurgeInstanceFilter {
            created_time_from: purge.created_from.map(timestamp),
            created_time_to: purge.created_to.map(timestamp),
            runtime_status: purge.statuses.into_iter().map(Status::wire).collect(),
            timeout: purge
                .within
                .and_then(|within| prost_types::Duration::try_from(within).ok()),
        };
        let request = self.connection.request(PurgeInstancesRequest {
            request: Some(PurgeRequest::PurgeInstanceFilter(filter)),
            ..Default::default()
        });
        let response = self
            .connection
            .service()
            .purge_instances(request)
            .await?
            .into_inner();
        Ok(Purged {
            count: u32::try_from(response.deleted_instance_count).unwrap_or(0),
            is_complete: response.is_complete.unwrap_or(true),
        })
    }
}
