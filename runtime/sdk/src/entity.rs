//! Entities: a plain struct as state, and operations that are types of their own.

mod batch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use mainspring_proto::operation_action::OperationActionType;
use mainspring_proto::{OperationAction, SendSignalAction, StartNewOrchestrationAction};
use serde::Serialize;

use crate::convert::{Payload, Payloads};
use crate::error::{Result, type_name_of};
use crate::handler::Orchestration;
use crate::time::timestamp;

pub(crate) use batch::EntityHost;

/// An entity's address: a name, which says what it is, and a key, which says which one.
///
/// ```
/// use mainspring_sdk::EntityId;
///
/// let id = EntityId::new("Counter", "visits");
/// assert_eq!(id.to_string(), "@counter@visits");
/// assert_eq!("@counter@visits".parse(), Ok(id));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId {
    name: String,
    key: String,
}

impl EntityId {
    /// Names are the same in any case of letters; keys are not.
    pub fn new(name: impl AsRef<str>, key: impl Into<String>) -> Self {
        Self {
            name: name.as_ref().to_lowercase(),
            key: key.into(),
        }
    }

    /// The entity of this type with that key.
    pub fn of<E: Entity>(key: impl Into<String>) -> Self {
        Self::new(E::name(), key)
    }

    /// The name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "@{}@{}", self.name, self.key)
    }
}

/// A text that is no entity's id.
///
/// ```
/// use mainspring_sdk::{EntityId, InvalidEntityId};
///
/// let error: InvalidEntityId = "visits".parse::<EntityId>().unwrap_err();
/// assert_eq!(error.to_string(), "'visits' is no entity id: it has to be '@name@key'");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no entity id: it has to be '@name@key'")]
pub struct InvalidEntityId(String);

impl FromStr for EntityId {
    type Err = InvalidEntityId;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidEntityId> {
        let invalid = || InvalidEntityId(text.to_owned());
        let rest = text.strip_prefix('@').ok_or_else(invalid)?;
        match rest.split_once('@') {
            Some((name, key)) if !name.is_empty() => Ok(Self::new(name, key)),
            _ => Err(invalid()),
        }
    }
}

/// A durable entity: state under an address, changed by one operation at a time.
///
/// The state is what serde writes of the struct. An entity comes into being with its first operation, as its `Default`.
///
/// ```
/// use mainspring_sdk::{Entity, EntityContext, Operation, Operations, Result};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Counter {
///     value: i64,
/// }
///
/// impl Entity for Counter {
///     fn operations(operations: &mut Operations<Self>) {
///         operations.add::<Add>().add::<Get>();
///     }
/// }
///
/// /// Operation `add`: adds, and tells the new value.
/// #[derive(Serialize, Deserialize)]
/// struct Add(i64);
///
/// impl Operation<Counter> for Add {
///     type Output = i64;
///
///     async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> {
///         counter.value += self.0;
///         Ok(counter.value)
///     }
/// }
///
/// /// Operation `get`.
/// #[derive(Serialize, Deserialize)]
/// struct Get;
///
/// impl Operation<Counter> for Get {
///     type Output = i64;
///
///     async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> {
///         Ok(counter.value)
///     }
/// }
/// ```
pub trait Entity: Default + Payload {
    /// The name in its ids: the type's, unless overridden. In lower case in any case.
    fn name() -> Cow<'static, str> {
        Cow::Borrowed(type_name_of::<Self>())
    }

    /// Lists what can be asked of it.
    fn operations(operations: &mut Operations<Self>);
}

/// Something that can be asked of an entity of type `E`. What serde writes of it is the operation's input: `struct Add(i64)` is
/// written as the number alone, so that other languages may ask, too.
///
/// ```
/// # use mainspring_sdk::{Entity, EntityContext, Failure, Operation, Operations, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Account { cents: u64 }
/// # impl Entity for Account { fn operations(operations: &mut Operations<Self>) { operations.add::<Withdraw>(); } }
/// /// Operation `withdraw`: tells how many cents are left.
/// #[derive(Serialize, Deserialize)]
/// struct Withdraw(u64);
///
/// impl Operation<Account> for Withdraw {
///     type Output = u64;
///
///     async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<u64> {
///         let left = account.cents.checked_sub(self.0);
///         account.cents = left.ok_or_else(|| Failure::new("Overdrawn", "there is less"))?;
///         Ok(account.cents)
///     }
/// }
///
/// assert_eq!(Withdraw::name(), "withdraw");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no operation of entity `{E}`",
    label = "`{E}` cannot be asked for this",
    note = "implement `Operation<{E}>` for `{Self}`, and list it in `{E}::operations`"
)]
pub trait Operation<E: Entity>: Payload {
    /// What a caller gets.
    type Output: Payload;

    /// The operation's name: the type's in snake case, unless overridden.
    fn name() -> Cow<'static, str> {
        Cow::Owned(snake_case(type_name_of::<Self>()))
    }

    /// Does it. An error leaves the state as it was, and nothing that the operation sent is sent.
    fn apply(
        self,
        entity: &mut E,
        ctx: &EntityContext,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// `GetBalance` gives `get_balance`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (position, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && position > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

type Applied<'a> = Pin<Box<dyn Future<Output = Result<Option<String>>> + Send + 'a>>;
type Apply<E> = for<'a> fn(Option<String>, &'a mut E, &'a EntityContext) -> Applied<'a>;

/// The operations of an entity, by name.
///
/// ```
/// # use mainspring_sdk::{Entity, EntityContext, Operation, Operations, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Account { cents: u64 }
/// # #[derive(Serialize, Deserialize)] struct Deposit(u64);
/// # impl Operation<Account> for Deposit {
/// #     type Output = ();
/// #     async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<()> { account.cents += self.0; Ok(()) }
/// # }
/// # #[derive(Serialize, Deserialize)] struct GetBalance;
/// # impl Operation<Account> for GetBalance {
/// #     type Output = u64;
/// #     async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<u64> { Ok(account.cents) }
/// # }
/// impl Entity for Account {
///     fn operations(operations: &mut Operations<Self>) {
///         operations.add::<Deposit>().add::<GetBalance>();
///     }
/// }
/// ```
pub struct Operations<E> {
    by_name: BTreeMap<String, Apply<E>>,
}

impl<E> fmt::Debug for Operations<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl<E: Entity> Operations<E> {
    fn of_entity() -> Self {
        let mut operations = Self {
            by_name: BTreeMap::new(),
        };
        E::operations(&mut operations);
        operations
    }

    /// Adds one.
    ///
    /// # Panics
    ///
    /// If there is one of that name already.
    pub fn add<Op: Operation<E>>(&mut self) -> &mut Self {
        let name = Op::name().to_lowercase();
        let before = self.by_name.insert(name, apply::<E, Op>);
        assert!(
            before.is_none(),
            "entity '{}' has two operations '{}'",
            E::name(),
            Op::name()
        );
        self
    }

    fn find(&self, name: &str) -> Option<Apply<E>> {
        self.by_name.get(&name.to_lowercase()).copied()
    }
}

fn apply<'a, E: Entity, Op: Operation<E>>(
    input: Option<String>,
    entity: &'a mut E,
    ctx: &'a EntityContext,
) -> Applied<'a> {
    Box::pin(async move {
        let operation: Op = ctx.payloads.read("input", input.as_deref())?;
        let output = operation.apply(entity, ctx).await?;
        ctx.payloads.write("output", &output)
    })
}

/// What an operation may do beside changing the state. What it sends goes out together with the new state, or not at all.
///
/// ```
/// # use mainspring_sdk::{Entity, EntityContext, Operation, Operations, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Account { cents: u64 }
/// # impl Entity for Account { fn operations(operations: &mut Operations<Self>) { operations.add::<Deposit>().add::<Close>(); } }
/// # #[derive(Serialize, Deserialize)] struct Deposit(u64);
/// # impl Operation<Account> for Deposit {
/// #     type Output = ();
/// #     async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<()> { account.cents += self.0; Ok(()) }
/// # }
/// # #[derive(Serialize, Deserialize)] struct Close { heir: String }
/// impl Operation<Account> for Close {
///     type Output = ();
///
///     async fn apply(self, account: &mut Account, ctx: &EntityContext) -> Result<()> {
///         ctx.signal::<Account, _>(self.heir, Deposit(account.cents))?;
///         ctx.delete();
///         Ok(())
///     }
/// }
/// ```
pub struct EntityContext {
    id: EntityId,
    payloads: Payloads,
    effects: Mutex<Effects>,
}

#[derive(Default)]
struct Effects {
    actions: Vec<OperationAction>,
    is_deleted: bool,
}

impl fmt::Debug for EntityContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EntityContext({})", self.id)
    }
}

impl EntityContext {
    fn new(id: EntityId, payloads: Payloads) -> Self {
        Self {
            id,
            payloads,
            effects: Mutex::default(),
        }
    }

    fn effects(&self) -> MutexGuard<'_, Effects> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entity's own id.
    pub fn id(&self) -> &EntityId {
        &self.id
    }

    /// Deletes the state once this operation has succeeded. The next operation begins anew.
    pub fn delete(&self) {
        self.effects().is_deleted = true;
    }

    /// Asks another entity of this program for something, and waits for nothing.
    ///
    /// # Errors
    ///
    /// When the operation cannot be written as a payload.
    pub fn signal<E: Entity, Op: Operation<E>>(
        &self,
        key: impl Into<String>,
        operation: Op,
    ) -> Result<()> {
        self.signal_entity(&EntityId::of::<E>(key), Op::name(), operation, None)
    }

    /// Asks an entity of any program for something, now or at a time to come, and waits for nothing.
    ///
    /// # Errors
    ///
    /// When the input cannot be written as a payload.
    pub fn signal_entity(
        &self,
        entity: &EntityId,
        operation: impl Into<String>,
        input: impl Serialize,
        at: Option<SystemTime>,
    ) -> Result<()> {
        let input = self.payloads.write("input", &input)?;
        self.act(OperationActionType::SendSignal(SendSignalAction {
            instance_id: entity.to_string(),
            name: operation.into(),
            input,
            scheduled_time: at.map(timestamp),
            ..Default::default()
        }));
        Ok(())
    }

    /// Starts an orchestration of this program; an empty id lets the scheduler choose one.
    ///
    /// # Errors
    ///
    /// When the input cannot be written as a payload.
    pub fn start<F, I, O>(&self, orchestration: F, input: I, id: impl Into<String>) -> Result<()>
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        let version = orchestration.version().map(str::to_owned);
        self.start_by_name(orchestration.name(), input, id, version)
    }

    /// Starts an orchestration of any program.
    ///
    /// # Errors
    ///
    /// When the input cannot be written as a payload.
    pub fn start_by_name(
        &self,
        name: impl Into<String>,
        input: impl Serialize,
        id: impl Into<String>,
        version: Option<String>,
    ) -> Result<()> {
        let input = self.payloads.write("input", &input)?;
        let start = StartNewOrchestrationAction {
            instance_id: id.into(),
            name: name.into(),
            version,
            input,
            ..Default::default()
        };
        self.act(OperationActionType::StartNewOrchestration(start));
        Ok(())
    }

    fn act(&self, action: OperationActionType) {
        let mut effects = self.effects();
        let id = i32::try_from(effects.actions.len()).unwrap_or(i32::MAX);
        effects.actions.push(OperationAction {
            id,
            operation_action_type: Some(action),
        });
    }
}
