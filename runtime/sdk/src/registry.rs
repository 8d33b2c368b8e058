//! What a worker can run, by name and version.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use mainspring_proto::{
    ActivityFilter, EntityFilter, EntityRequest, OrchestrationFilter, WorkItemFilters,
};

use crate::activity::ActivityContext;
use crate::convert::{Payload, Payloads};
use crate::entity::{Entity, EntityHost};
use crate::error::Error;
use crate::handler::{Activity, BoxFuture, Orchestration};
use crate::orchestration::{OrchestrationContext, Outcome};

/// An orchestrator whose types are forgotten.
pub(crate) trait AnyOrchestration: Send + Sync {
    fn start(
        &self,
        ctx: OrchestrationContext,
        input: Option<String>,
        payloads: Payloads,
    ) -> BoxFuture<Outcome>;
}

/// An activity whose types are forgotten.
pub(crate) trait AnyActivity: Send + Sync {
    fn start(
        &self,
        ctx: ActivityContext,
        input: Option<&str>,
        payloads: Payloads,
    ) -> BoxFuture<Outcome>;
}

/// An entity type whose types are forgotten.
pub(crate) trait AnyEntity: Send + Sync {
    fn run(
        &self,
        request: EntityRequest,
        payloads: Payloads,
    ) -> BoxFuture<mainspring_proto::EntityBatchResult>;
}

struct Typed<F, I, O> {
    handler: Arc<F>,
    types: PhantomData<fn(I) -> O>,
}

impl<F, I, O> Typed<F, I, O> {
    fn new(handler: F) -> Self {
        Self {
            handler: Arc::new(handler),
            types: PhantomData,
        }
    }
}

impl<F: Orchestration<I, O>, I: Payload, O: Payload> AnyOrchestration for Typed<F, I, O> {
    fn start(
        &self,
        ctx: OrchestrationContext,
        input: Option<String>,
        payloads: Payloads,
    ) -> BoxFuture<Outcome> {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move {
            let input = payloads.read("input", input.as_deref())?;
            let output = handler.run(ctx, input).await?;
            payloads.write("output", &output)
        })
    }
}

impl<F: Activity<I, O>, I: Payload, O: Payload> AnyActivity for Typed<F, I, O> {
    fn start(
        &self,
        ctx: ActivityContext,
        input: Option<&str>,
        payloads: Payloads,
    ) -> BoxFuture<Outcome> {
        let input = match payloads.read("input", input) {
            Ok(input) => input,
            Err(failure) => return Box::pin(std::future::ready(Err(failure))),
        };
        let future = self.handler.run(ctx, input);
        Box::pin(async move { payloads.write("output", &future.await?) })
    }
}

/// Code under a name: for certain versions, and for any other.
struct Versions<T: ?Sized> {
    /// As it was registered.
    name: String,
    any: Option<Arc<T>>,
    of: BTreeMap<String, Arc<T>>,
}

impl<T: ?Sized> Versions<T> {
    fn find(&self, version: &str) -> Option<Arc<T>> {
        self.of.get(version).or(self.any.as_ref()).cloned()
    }

    /// What the scheduler may send: none listed means any.
    fn listed(&self) -> Vec<String> {
        match self.any {
            Some(_) => Vec::new(),
            None => self.of.keys().cloned().collect(),
        }
    }
}

/// Everything registered, by lower-case name: the scheduler matches names without regard to case (S-13.11).
#[derive(Default)]
pub(crate) struct Registry {
    orchestrations: HashMap<String, Versions<dyn AnyOrchestration>>,
    activities: HashMap<String, Versions<dyn AnyActivity>>,
    entities: HashMap<String, Arc<dyn AnyEntity>>,
    /// What was registered twice; told when the worker starts.
    doubled: Option<String>,
}

impl Registry {
    pub(crate) fn add_orchestration<F, I, O>(&mut self, handler: F)
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        let (name, version) = (
            handler.name().into_owned(),
            handler.version().map(str::to_owned),
        );
        let handler: Arc<dyn AnyOrchestration> = Arc::new(Typed::new(handler));
        if !insert(&mut self.orchestrations, &name, version, handler) {
            self.doubled = Some(format!("orchestration '{name}' is registered twice"));
        }
    }

    pub(crate) fn add_activity<F, I, O>(&mut self, handler: F)
    where
        F: Activity<I, O>,
        I: Payload,
        O: Payload,
    {
        let (name, version) = (
            handler.name().into_owned(),
            handler.version().map(str::to_owned),
        );
        let handler: Arc<dyn AnyActivity> = Arc::new(Typed::new(handler));
        if !insert(&mut self.activities, &name, version, handler) {
            self.doubled = Some(format!("activity '{name}' is registered twice"));
        }
    }

    pub(crate) fn add_entity<E: Entity>(&mut self) {
        let name = E::name().to_lowercase();
        let host: Arc<dyn AnyEntity> = Arc::new(EntityHost::<E>::new());
        if self.entities.insert(name.clone(), host).is_some() {
            self.doubled = Some(format!("entity '{name}' is registered twice"));
        }
    }

    pub(crate) fn orchestration(
        &self,
        name: &str,
        version: &str,
    ) -> Option<Arc<dyn AnyOrchestration>> {
        self.orchestrations.get(&name.to_lowercase())?.find(version)
    }

    pub(crate) fn activity(&self, name: &str, version: &str) -> Option<Arc<dyn AnyActivity>> {
        self.activities.get(&name.to_lowercase())?.find(version)
    }

    pub(crate) fn entity(&self, name: &str) -> Option<Arc<dyn AnyEntity>> {
        self.entities.get(&name.to_lowercase()).cloned()
    }

    /// Whether a worker can be started with it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(doubled) = &self.doubled {
            return Err(Error::Setting(doubled.clone()));
        }
        if self.orchestrations.is_empty() && self.activities.is_empty() && self.entities.is_empty()
        {
            return Err(Error::Setting(
                "the worker has nothing to run: register an orchestration, an activity or an entity"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// What the scheduler may send, so that several workers share a task hub (S-13.9).
    pub(crate) fn filters(&self) -> WorkItemFilters {
        let orchestrations = sorted(&self.orchestrations)
            .map(|(name, versions)| OrchestrationFilter { name, versions });
        let activities =
            sorted(&self.activities).map(|(name, versions)| ActivityFilter { name, versions });
        let mut entities: Vec<EntityFilter> = self
            .entities
            .keys()
            .map(|name| EntityFilter { name: name.clone() })
            .collect();
        entities.sort_by(|a, b| a.name.cmp(&b.name));
        WorkItemFilters {
            orchestrations: orchestrations.collect(),
            activities: activities.collect(),
            entities,
        }
    }
}

fn insert<T: ?Sized>(
    map: &mut HashMap<String, Versions<T>>,
    name: &str,
    version: Option<String>,
    handler: Arc<T>,
) -> bool {
    let versions = map.entry(name.to_lowercase()).or_insert_with(|| Versions {
        name: name.to_owned(),
        any: None,
        of: BTreeMap::new(),
    });
    match version {
        Some(version) => versions.of.insert(version, handler).is_none(),
        None => versions.any.replace(handler).is_none(),
    }
}

fn sorted<T: ?Sized>(
    map: &HashMap<String, Versions<T>>,
) -> impl Iterator<Item = (String, Vec<String>)> {
    let mut list: Vec<_> = map
        .values()
        .map(|versions| (versions.name.clone(), versions.listed()))
        .collect();
    list.sort();
    list.into_iter()
}
