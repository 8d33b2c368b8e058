//! Task hubs: names to incarnations. Recreating a hub begins a new incarnation in one commit; the old one's data is unreachable at once
//! and deleted in slices.

use std::collections::HashMap;
use std::sync::RwLock;

use mainspring_core::id::{HubId, PartitionId};
use mainspring_store::{Batch, query};
use tokio::sync::{Mutex, oneshot};

use crate::error::{Error, ErrorKind};
use crate::host::Host;
use crate::partition::{Retire, Services};

/// Longest hub name, in characters: as long as an instance id.
const NAME_CHARS_MAX: usize = 100;

/// Keys deleted at once from a retired hub: a few milliseconds of the committer's time.
const DELETION_SLICE: usize = 2_000;

pub(crate) struct Hubs {
    names: RwLock<HashMap<String, HubId>>,
    /// What became of incarnations that ended while this process runs: waiting calls go on in the next (S-19).
    successors: RwLock<HashMap<HubId, HubId>>,
    /// One change at a time; holds the highest incarnation drawn.
    changes: Mutex<u32>,
}

impl Hubs {
    /// Reads the hubs and creates the configured ones that are missing.
    pub(crate) fn open(services: &Services) -> Result<Self, Error> {
        let read = services.store.read();
        let mut names: HashMap<String, HubId> = query::hubs(&*read)?.into_iter().collect();
        let mut last = query::hub_id_max(&*read)?.map_or(0, |hub| hub.0);
        drop(read);
        for name in &services.config.hubs {
            let name = normalise(name)?;
            if names.contains_key(&name) {
                continue;
            }
            last += 1;
            commit_blocking(services, |batch| batch.put_hub(&name, HubId(last)))?;
            names.insert(name, HubId(last));
        }
        Ok(Self {
            names: RwLock::new(names),
            successors: RwLock::default(),
            changes: Mutex::new(last),
        })
    }

    fn get(&self, name: &str) -> Option<HubId> {
        self.names
            .read()
            .expect("no panic while hubs are locked")
            .get(name)
            .copied()
    }

    pub(crate) fn name_of(&self, hub: HubId) -> Option<String> {
        self.names
            .read()
            .expect("no panic while hubs are locked")
            .iter()
            .find(|(_, id)| **id == hub)
            .map(|(name, _)| name.clone())
    }

    /// All hubs that exist.
    pub(crate) fn ids(&self) -> Vec<HubId> {
        self.names
            .read()
            .expect("no panic while hubs are locked")
            .values()
            .copied()
            .collect()
    }

    /// The incarnation that took the place of an ended one.
    pub(crate) fn successor(&self, hub: HubId) -> Option<HubId> {
        self.successors
            .read()
            .expect("no panic while hubs are locked")
            .get(&hub)
            .copied()
    }

    fn set(&self, name: &str, hub: Option<HubId>) {
        let mut names = self.names.write().expect("no panic while hubs are locked");
        match hub {
            Some(hub) => names.insert(name.to_owned(), hub),
            None => names.remove(name),
        };
    }
}

fn normalise(name: &str) -> Result<String, Error> {
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err(Error::invalid("the task hub name is empty"));
    }
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "a task hub name has at most {NAME_CHARS_MAX} characters and no control characters"
        )));
    }
    Ok(name)
}

/// Runs to its end even if the caller gives up: what is on disk about hubs and what is in memory must not part.
async fn unbroken<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|_| Err(Error::stopping()))
}

fn hub_batch(services: &Services, change: impl FnOnce(&mut Batch)) -> Batch {
    // Hubs are written with the epoch of the first partition, whoever owns it.
    let mut batch = Batch::new(PartitionId(0), services.epochs[0]);
    change(&mut batch);
    batch
}

fn commit_blocking(services: &Services, change: impl FnOnce(&mut Batch)) -> Result<(), Error> {
    let (done, wait) = std::sync::mpsc::channel();
    services.committer.submit(
        hub_batch(services, change),
        Box::new(move |result| drop(done.send(result))),
    );
    wait.recv().map_err(|_| Error::stopping())??;
    Ok(())
}

impl Host {
    /// The hub that a request names (S-1.6): trimmed, without regard to case; the fallback when none is named. Unknown: not found (S-1.7),
    /// or created when hubs come on demand (S-1.16).
    pub async fn hub(&self, name: Option<&str>) -> Result<HubId, Error> {
        if self.is_stopping() {
            return Err(Error::stopping());
        }
        let named = name.map(str::trim).filter(|n| !n.is_empty());
        let Some(name) = named.or(self.inner.services.config.fallback_hub.as_deref()) else {
            return Err(Error::invalid(
                "the request names no task hub; send the metadata key 'taskhub'",
            ));
        };
        let name = normalise(name)?;
        if let Some(hub) = self.inner.hubs.get(&name) {
            return Ok(hub);
        }
        if !self.inner.services.config.dynamic_hubs {
            return Err(Error::not_found(format!(
                "task hub '{name}' does not exist"
            )));
        }
        self.create(&name, false).await
    }

    /// The name of a hub that exists.
    pub fn hub_name(&self, hub: HubId) -> Option<String> {
        self.inner.hubs.name_of(hub)
    }

    /// Creates a hub; an existing one stays as it is, or with `recreate` begins a new, empty incarnation.
    pub async fn create_hub(&self, name: &str, recreate: bool) -> Result<(), Error> {
        self.admin()?;
        self.create(&normalise(name)?, recreate).await.map(drop)
    }

    /// Deletes a hub with all that is in it.
    pub async fn delete_hub(&self, name: &str) -> Result<(), Error> {
        self.admin()?;
        let name = normalise(name)?;
        let host = self.clone();
        unbroken(async move { host.delete_now(&name).await }).await
    }

    async fn delete_now(&self, name: &str) -> Result<(), Error> {
        let _change = self.inner.hubs.changes.lock().await;
        let Some(old) = self.inner.hubs.get(name) else {
            return Err(Error::not_found(format!(
                "task hub '{name}' does not exist"
            )));
        };
        self.commit(|batch| {
            batch.remove_hub(name);
            batch.retire_hub(old);
        })
        .await?;
        self.inner.hubs.set(name, None);
        self.retire(old, None);
        Ok(())
    }

    /// Streams move on, and what is in memory of the old incarnation goes.
    fn retire(&self, old: HubId, new: Option<HubId>) {
        if let Some(new) = new {
            self.inner
                .hubs
                .successors
                .write()
                .expect("no panic while hubs are locked")
                .insert(old, new);
        }
        let services = &self.inner.services;
        services.dispatch.replace_hub(old, new);
        for partition in services.placement().partitions() {
            partition.do_send(Retire { hub: old });
        }
    }

    fn admin(&self) -> Result<(), Error> {
        if self.inner.services.config.hub_admin {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Denied,
            "task hubs are managed by the operator; start the server with --allow-hub-admin to allow it to clients",
        ))
    }

    async fn create(&self, name: &str, recreate: bool) -> Result<HubId, Error> {
        let host = self.clone();
        let name = name.to_owned();
        unbroken(async move { host.create_now(&name, recreate).await }).await
    }

    async fn create_now(&self, name: &str, recreate: bool) -> Result<HubId, Error> {
        let mut last = self.inner.hubs.changes.lock().await;
        let old = self.inner.hubs.get(name);
        if let (Some(hub), false) = (old, recreate) {
            return Ok(hub);
        }
        // Drawn whatever becomes of the commit: no number is given twice.
        *last += 1;
        let hub = HubId(*last);
        self.commit(|batch| {
            batch.put_hub(name, hub);
            if let Some(old) = old {
                batch.retire_hub(old);
            }
        })
        .await?;
        self.inner.hubs.set(name, Some(hub));
        if let Some(old) = old {
            self.retire(old, Some(hub));
        }
        Ok(hub)
    }

    async fn commit(&self, change: impl FnOnce(&mut Batch)) -> Result<(), Error> {
        let services = &self.inner.services;
        let (done, wait) = oneshot::channel();
        services.committer.submit(
            hub_batch(services, change),
            Box::new(move |result| drop(done.send(result))),
        );
        wait.await.map_err(|_| Error::stopping())??;
        Ok(())
    }

    /// Deletes one slice of what retired hubs have left behind.
    pub(crate) async fn delete_retired_hubs(&self) {
        let deleted = self.delete_hub_slice().await;
        if let Err(error) = deleted {
            tracing::error!(%error, "a retired task hub cannot be deleted yet");
        }
    }

    async fn delete_hub_slice(&self) -> Result<(), Error> {
        let slice = {
            let read = self.inner.services.store.read();
            let Some(hub) = query::retired_hubs(&*read)?.into_iter().next() else {
                return Ok(());
            };
            (hub, query::hub_slice(&*read, hub, DELETION_SLICE)?)
        };
        let (hub, ops) = slice;
        self.commit(|batch| {
            if ops.is_empty() {
                batch.forget_hub(hub);
            }
            batch.extend(ops);
        })
        .await
    }
}
