//! Purging: one id, a batch, or whatever a filter matches; with descendants if asked (S-11.18 to S-11.25).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mainspring_core::id::{ExecutionId, HubId, InstanceId, InstanceKey};
use mainspring_core::orchestration::Status;
use mainspring_core::time::Timestamp;
use mainspring_store::query::{self as stored, InstanceFilter};

use crate::activation::{Family, Input};
use crate::api::{Purge, Purged};
use crate::client::check_batch;
use crate::error::{Error, ErrorKind};
use crate::host::Host;
use crate::query;

/// Instances looked at between two looks at the clock.
const SLICE: usize = 100;

/// Time that purging expired instances may take of each second, so that retention never crowds out work.
pub(crate) const EXPIRED_TIME: Duration = Duration::from_millis(250);

impl Host {
    /// Deletes finished instances with everything that belongs to them; entities that are named, unless `spares_entities` (S-11.23).
    pub async fn purge(
        &self,
        hub: HubId,
        what: Purge,
        is_recursive: bool,
        spares_entities: bool,
    ) -> Result<Purged, Error> {
        let _credit = self.credit().await?;
        match what {
            Purge::Id(id) if id.starts_with('@') => {
                let count = self.purge_named_entity(hub, &id, spares_entities).await?;
                Ok(Purged {
                    count,
                    is_complete: true,
                })
            }
            Purge::Id(id) => self.purge_id(hub, &id, is_recursive).await,
            Purge::Batch(ids) => {
                check_batch(ids.len())?;
                let mut count = 0;
                for id in ids {
                    count += match id.starts_with('@') {
                        true => self.purge_named_entity(hub, &id, spares_entities).await?,
                        false => self.purge_match(hub, &id, is_recursive).await?,
                    };
                }
                Ok(Purged {
                    count,
                    is_complete: true,
                })
            }
            Purge::Filter {
                created_from,
                created_to,
                statuses,
                timeout,
            } => {
                let Some(statuses) = query::statuses(&statuses) else {
                    return Ok(Purged {
                        count: 0,
                        is_complete: true,
                    });
                };
                let filter = InstanceFilter {
                    statuses: terminal(statuses),
                    created_from,
                    created_to,
                    prefix: None,
                };
                if filter.statuses.is_empty() {
                    return Ok(Purged {
                        count: 0,
                        is_complete: true,
                    });
                }
                self.purge_filter(hub, filter, timeout, is_recursive).await
            }
        }
    }

    async fn purge_id(&self, hub: HubId, id: &str, is_recursive: bool) -> Result<Purged, Error> {
        let Ok(key) = Self::key(hub, id) else {
            return Ok(Purged {
                count: 0,
                is_complete: true,
            });
        };
        let purged = if is_recursive {
            self.purge_tree(key).await
        } else {
            self.purge_one(key).await
        };
        match purged {
            Ok(count) => Ok(Purged {
                count,
                is_complete: true,
            }),
            Err(error)
                if error.kind() == ErrorKind::FailedPrecondition
                    && !self.inner.services.config.purge_active_is_error =>
            {
                Ok(Purged {
                    count: 0,
                    is_complete: true,
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn purge_named_entity(
        &self,
        hub: HubId,
        id: &str,
        spares_entities: bool,
    ) -> Result<u32, Error> {
        if spares_entities {
            return Ok(0);
        }
        self.purge_entity(hub, id).await.map(u32::from)
    }

    /// As part of a batch or a filter: active ones, and trees with an active descendant, are skipped.
    async fn purge_match(&self, hub: HubId, id: &str, is_recursive: bool) -> Result<u32, Error> {
        let Ok(key) = Self::key(hub, id) else {
            return Ok(0);
        };
        let purged = if is_recursive {
            self.purge_tree(key).await
        } else {
            self.purge_one(key).await
        };
        match purged {
            Err(error) if error.kind() == ErrorKind::FailedPrecondition => Ok(0),
            purged => purged,
        }
    }

    async fn purge_one(&self, key: InstanceKey) -> Result<u32, Error> {
        let purged = self.ask(key, |reply| Input::Purge { reply }).await?;
        Ok(u32::from(purged.is_some()))
    }

    /// Deletes an instance and its descendants; nothing if one of them is active (S-11.19).
    async fn purge_tree(&self, root: InstanceKey) -> Result<u32, Error> {
        let Some(family) = self.family(&root).await? else {
            return Ok(0);
        };
        let hub = root.hub;
        let mut found = vec![root.instance.clone()];
        let mut known: HashSet<InstanceId> = found.iter().cloned().collect();
        let mut open = vec![(root.instance, family)];
        while let Some((id, family)) = open.pop() {
            if !family.is_terminal {
                return Err(Error::failed_precondition(format!(
                    "orchestration instance '{id}' is active; only finished instances can be purged"
                )));
            }
            for child in family.children {
                let key = InstanceKey {
                    hub,
                    instance: child.clone(),
                };
                let Some(grandchildren) = self.family(&key).await? else {
                    continue;
                };
                if !is_child_of(&grandchildren, &id, &family.execution_id)
                    || !known.insert(child.clone())
                {
                    continue;
                }
                found.push(child.clone());
                open.push((child, grandchildren));
            }
        }
        // Children first: a crash in between leaves a tree that can be purged again from its root.
        let mut count = 0;
        for instance in found.into_iter().rev() {
            match self.purge_one(InstanceKey { hub, instance }).await {
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => {}
                purged => count += purged?,
            }
        }
        Ok(count)
    }

    async fn family(&self, key: &InstanceKey) -> Result<Option<Family>, Error> {
        self.ask(key.clone(), |reply| Input::Family { reply }).await
    }

    async fn purge_filter(
        &self,
        hub: HubId,
        filter: InstanceFilter,
        timeout: Option<Duration>,
        is_recursive: bool,
    ) -> Result<Purged, Error> {
        let since = Instant::now();
        self.settle().await;
        let mut after: Option<(Timestamp, InstanceId)> = None;
        let mut count = 0;
        loop {
            let page = {
                let read = self.inner.services.store.read();
                stored::query_instances(
                    &*read,
                    hub,
                    self.inner.services.store.partitions(),
                    &filter,
                    after.as_ref(),
                    SLICE,
                )?
            };
            for (_, id, _) in page.keys {
                if self.is_stopping() {
                    return Err(Error::stopping());
                }
                if timeout.is_some_and(|t| since.elapsed() >= t) {
                    return Ok(Purged {
                        count,
                        is_complete: false,
                    });
                }
                count += self.purge_match(hub, id.as_str(), is_recursive).await?;
            }
            match page.next {
                Some(next) if page.more => after = Some(next),
                _ => {
                    return Ok(Purged {
                        count,
                        is_complete: true,
                    });
                }
            }
        }
    }

    /// Purges what is older than the retention allows, for at most that long (S-11.25).
    pub(crate) async fn purge_expired(&self, within: Duration) {
        let Some(retention) = self.inner.services.config.retention else {
            return;
        };
        let since = Instant::now();
        let oldest_kept = self.now().seconds() - retention.as_secs() as i64;
        for hub in self.inner.hubs.ids() {
            let mut after = None;
            while since.elapsed() < within && !self.is_stopping() {
                let listed = {
                    let read = self.inner.services.store.read();
                    let to = Some(Timestamp::new(oldest_kept, 0));
                    stored::list_completed(&*read, hub, &[], None, to, after.as_ref(), SLICE)
                };
                let page = match listed {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::error!(%error, hub = self.inner.services.hub_name(hub), "expired instances cannot be listed");
                        break;
                    }
                };
                // All at once: they share a commit.
                let ids = page.keys.iter().map(|(_, id, _)| id.as_str());
                join_all(ids.map(|id| self.purge_expired_one(hub, id))).await;
                match page.next {
                    Some(next) if page.more => after = Some(next),
                    _ => break,
                }
            }
        }
    }

    async fn purge_expired_one(&self, hub: HubId, id: &str) {
        if let Err(error) = self.purge_match(hub, id, false).await {
            let hub = self.inner.services.hub_name(hub);
            tracing::warn!(%error, hub, instance = id, "an expired instance could not be purged");
        }
    }
}

fn terminal(statuses: Vec<Status>) -> Vec<Status> {
    if statuses.is_empty() {
        return vec![
            Status::Completed,
            Status::Failed,
            Status::Terminated,
            Status::Canceled,
        ];
    }
    statuses.into_iter().filter(|s| s.is_terminal()).collect()
}

fn is_child_of(child: &Family, parent: &InstanceId, execution_id: &ExecutionId) -> bool {
    child
        .parent
        .as_ref()
        .is_some_and(|p| p.instance == *parent && p.fence.execution_id == *execution_id)
}
