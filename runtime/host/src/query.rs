//! Queries over many instances: pages in a stable order, never from anything that is not durable.

use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};
use mainspring_core::orchestration::{Orchestration, Status, View};
use mainspring_core::time::Timestamp;
use mainspring_store::Batch;
use mainspring_store::query::{self as stored, InstanceFilter};

use crate::api::{InstanceQuery, ListPage, ListQuery, QueryPage};
use crate::error::Error;
use crate::host::Host;
use crate::placement::partition_of;

/// Instances a page when none is stated (S-11.10).
const PAGE_DEFAULT: usize = 100;
/// Instances a page at most.
const PAGE_MAX: usize = 1_000;
/// Bytes a page at most: half a megabyte below what ordinary channels receive (S-1.11).
pub(crate) const PAGE_BYTES_MAX: usize = 3_500_000;

pub(crate) fn page_size(stated: i32) -> usize {
    usize::try_from(stated)
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or(PAGE_DEFAULT)
        .min(PAGE_MAX)
}

/// The statuses asked for; `None`: none of them can match.
pub(crate) fn statuses(wire: &[i32]) -> Option<Vec<Status>> {
    let known: Vec<Status> = wire.iter().filter_map(|s| Status::from_wire(*s)).collect();
    (!known.is_empty() || wire.is_empty()).then_some(known)
}

/// A position in an order by (time, id), as text: seconds, nanoseconds, a bar, the id verbatim (S-11.16).
fn format_position((at, id): &(Timestamp, InstanceId)) -> String {
    format!("{}.{:09}|{}", at.seconds(), at.nanos(), id.as_str())
}

fn parse_position(text: &str) -> Option<(Timestamp, InstanceId)> {
    let (time, id) = text.split_once('|')?;
    let (seconds, nanos) = time.split_once('.')?;
    if id.is_empty() || nanos.len() != 9 {
        return None;
    }
    Some((
        Timestamp::new(seconds.parse().ok()?, nanos.parse().ok()?),
        InstanceId::from_stored(id),
    ))
}

impl Host {
    /// One page of instances in order of (created time, id) (S-11.9 to S-11.13).
    pub async fn query(&self, hub: HubId, query: InstanceQuery) -> Result<QueryPage, Error> {
        let empty = QueryPage {
            views: Vec::new(),
            token: None,
        };
        let after = match query.token.as_deref().filter(|t| !t.is_empty()) {
            None => None,
            Some(token) => Some(parse_position(token).ok_or_else(|| {
                Error::invalid(format!(
                    "continuation token '{token}' is not one of this server's"
                ))
            })?),
        };
        if !query.hub_names.is_empty() {
            let name = self.hub_name(hub).unwrap_or_default();
            if !query
                .hub_names
                .iter()
                .any(|n| n.trim().to_lowercase() == name)
            {
                return Ok(empty);
            }
        }
        let Some(statuses) = statuses(&query.statuses) else {
            return Ok(empty);
        };
        self.settle().await;
        let filter = InstanceFilter {
            statuses,
            created_from: query.created_from,
            created_to: query.created_to,
            prefix: query.prefix.filter(|p| !p.is_empty()),
        };
        let limit = page_size(query.page_size);
        let host = self.clone();
        let page = tokio::task::spawn_blocking(move || {
            host.read_page(hub, &filter, after, limit, query.include_payloads)
        })
        .await
        .map_err(|_| Error::stopping())??;
        self.made_durable().await?;
        Ok(page)
    }

    fn read_page(
        &self,
        hub: HubId,
        filter: &InstanceFilter,
        mut after: Option<(Timestamp, InstanceId)>,
        limit: usize,
        include_payloads: bool,
    ) -> Result<QueryPage, Error> {
        let services = &self.inner.services;
        let read = services.store.read();
        let partitions = services.store.partitions();
        let mut views: Vec<View> = Vec::new();
        let mut bytes = 0;
        loop {
            // One more than wanted tells whether this page is the last.
            let wanted = limit + 1 - views.len();
            let page =
                stored::query_instances(&*read, hub, partitions, filter, after.as_ref(), wanted)?;
            for (created_at, id, _) in page.keys {
                let key = InstanceKey {
                    hub,
                    instance: id.clone(),
                };
                let Some((record, start)) =
                    stored::instance(&*read, partition_of(&key, partitions), &key)?
                else {
                    continue;
                };
                let view =
                    Orchestration::stored_view(id.clone(), &record, &start, include_payloads);
                let size = view.bytes();
                if views.len() == limit || (bytes + size > PAGE_BYTES_MAX && !views.is_empty()) {
                    return Ok(QueryPage {
                        views,
                        token: after.as_ref().map(format_position),
                    });
                }
                bytes += size;
                views.push(view);
                after = Some((created_at, id));
            }
            match page.next {
                Some(next) if page.more => after = Some(next),
                _ => return Ok(QueryPage { views, token: None }),
            }
        }
    }

    /// One page of terminal instances in order of (completed time, id) (S-11.14 to S-11.17).
    pub async fn list_ids(&self, hub: HubId, query: ListQuery) -> Result<ListPage, Error> {
        let after = match query.after.as_deref().filter(|k| !k.is_empty()) {
            None => None,
            Some(key) => Some(self.list_position(hub, key).await?),
        };
        let statuses = statuses(&query.statuses).map(|s| {
            s.into_iter()
                .filter(|s| s.is_terminal())
                .collect::<Vec<_>>()
        });
        let Some(statuses) = statuses.filter(|s| !s.is_empty() || query.statuses.is_empty()) else {
            return Ok(ListPage {
                ids: Vec::new(),
                key: None,
            });
        };
        // What completes from now on may reach the disk out of order; up to here it is all there once settled.
        let Some(bound) = self.inner.services.completed.last(hub) else {
            return Ok(ListPage {
                ids: Vec::new(),
                key: None,
            });
        };
        self.settle().await;
        let to = Some(query.completed_to.map_or(bound, |to| to.min(bound)));
        let limit = page_size(query.page_size);
        let host = self.clone();
        let from = query.completed_from;
        let mut keys = tokio::task::spawn_blocking(move || {
            host.read_list(hub, &statuses, from, to, after, limit + 1)
        })
        .await
        .map_err(|_| Error::stopping())??;
        self.made_durable().await?;
        let has_more = keys.len() > limit;
        keys.truncate(limit);
        let is_full_last_page = !has_more && keys.len() == limit;
        let key = keys
            .last()
            .filter(|_| !(query.is_python && is_full_last_page))
            .map(format_position);
        Ok(ListPage {
            ids: keys
                .into_iter()
                .map(|(_, id)| id.as_str().to_owned())
                .collect(),
            key,
        })
    }

    /// The position a cursor names: the server's own key, or a bare id (S-11.16).
    async fn list_position(&self, hub: HubId, key: &str) -> Result<(Timestamp, InstanceId), Error> {
        if let Some(position) = parse_position(key) {
            return Ok(position);
        }
        let view = self.get(hub, key, false).await?;
        let position = view.and_then(|v| Some((v.completed_at?, v.id)));
        position.ok_or_else(|| {
            Error::invalid(format!(
                "the last instance key '{key}' names no finished orchestration instance"
            ))
        })
    }

    fn read_list(
        &self,
        hub: HubId,
        statuses: &[Status],
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        mut after: Option<(Timestamp, InstanceId)>,
        limit: usize,
    ) -> Result<Vec<(Timestamp, InstanceId)>, Error> {
        let read = self.inner.services.store.read();
        let mut found = Vec::new();
        loop {
            let page = stored::list_completed(
                &*read,
                hub,
                statuses,
                from,
                to,
                after.as_ref(),
                limit - found.len(),
            )?;
            found.extend(page.keys.into_iter().map(|(at, id, _)| (at, id)));
            match page.next {
                Some(next) if page.more && found.len() < limit => after = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// A read may have seen what is written and not yet durable: it is answered once that is.
    pub(crate) async fn made_durable(&self) -> Result<(), Error> {
        let services = &self.inner.services;
        let (done, wait) = tokio::sync::oneshot::channel();
        let barrier = Batch::new(PartitionId(0), services.epochs[0]);
        services
            .committer
            .submit(barrier, Box::new(move |result| drop(done.send(result))));
        wait.await.map_err(|_| Error::stopping())??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_position_reads_back_whatever_the_id_holds() {
        // S-11.16
        let position = (
            Timestamp::new(1_700_000_000, 123_456_000),
            InstanceId::from_stored("a|b|7"),
        );
        assert_eq!(parse_position(&format_position(&position)), Some(position));
    }

    #[test]
    fn a_bare_id_is_no_position() {
        // S-11.16
        for text in ["order-7", "a|b", "|b", "12|"] {
            assert_eq!(parse_position(text), None, "{text}");
        }
    }

    #[test]
    fn a_page_has_a_hundred_unless_stated_and_a_thousand_at_most() {
        // S-11.10
        assert_eq!([0, -1, 5, i32::MAX].map(page_size), [100, 100, 5, 1_000]);
    }

    #[test]
    fn statuses_that_are_never_stored_match_nothing() {
        // S-2.2
        assert_eq!(statuses(&[2]), None);
        assert_eq!(statuses(&[]), Some(vec![]));
        assert_eq!(statuses(&[2, 1]), Some(vec![Status::Completed]));
    }
}
