//! Values to payloads and back. JSON unless told otherwise, as the other SDKs write it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Failure, Result};

/// What can be an input, an output, an event or a state: anything that serde writes and reads.
///
/// It is implemented for every such type; nobody implements it by hand.
///
/// ```
/// use mainspring_sdk::{OrchestrationContext, Result};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Line {
///     item: String,
///     cents: u64,
/// }
///
/// async fn total(_: OrchestrationContext, lines: Vec<Line>) -> Result<u64> {
///     Ok(lines.iter().map(|line| line.cents).sum())
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored as a payload",
    label = "needs `serde::Serialize`, `serde::Deserialize`, and to be `Send + 'static`",
    note = "derive both: `#[derive(serde::Serialize, serde::Deserialize)]`; borrowed types such as `&str` have to be owned ones (`String`)"
)]
pub trait Payload: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Payload for T {}

/// Writes values as payloads of another form than plain JSON: encrypted, compressed, or in another format.
///
/// All clients and workers that share instances have to use the same one.
///
/// ```
/// use mainspring_sdk::Converter;
/// use serde_json::Value;
///
/// /// JSON with its bytes reversed: nothing to rely on.
/// struct Mirror;
///
/// impl Converter for Mirror {
///     fn encode(&self, value: &Value) -> Result<String, String> {
///         Ok(value.to_string().chars().rev().collect())
///     }
///
///     fn decode(&self, payload: &str) -> Result<Value, String> {
///         let json: String = payload.chars().rev().collect();
///         serde_json::from_str(&json).map_err(|error| error.to_string())
///     }
/// }
/// # assert_eq!(Mirror.decode(&Mirror.encode(&Value::from(12)).unwrap()).unwrap(), 12);
/// ```
pub trait Converter: Send + Sync + 'static {
    /// Writes a value as text.
    ///
    /// # Errors
    ///
    /// What is wrong with the value, for people.
    fn encode(&self, value: &Value) -> std::result::Result<String, String>;

    /// Reads what [`Converter::encode`] wrote.
    ///
    /// # Errors
    ///
    /// What is wrong with the payload, for people.
    fn decode(&self, payload: &str) -> std::result::Result<Value, String>;
}

/// JSON, or what the user gave.
#[derive(Clone, Default)]
pub(crate) struct Payloads(Option<Arc<dyn Converter>>);

impl fmt::Debug for Payloads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "own" } else { "json" })
    }
}

const NULL: &str = "null";

impl Payloads {
    pub(crate) fn new(converter: Arc<dyn Converter>) -> Self {
        Self(Some(converter))
    }

    /// `None` for what JSON writes as `null`, as the other SDKs leave out absent values.
    pub(crate) fn encode<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> std::result::Result<Option<String>, String> {
        let text = match &self.0 {
            None => serde_json::to_string(value).map_err(|error| error.to_string())?,
            Some(converter) => {
                let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
                if value.is_null() {
                    return Ok(None);
                }
                return converter.encode(&value).map(Some);
            }
        };
        Ok((text != NULL).then_some(text))
    }

    /// The same where it belongs to a task: what cannot be written fails it, and names what it was.
    pub(crate) fn write<T: Serialize + ?Sized>(
        &self,
        what: &str,
        value: &T,
    ) -> Result<Option<String>> {
        self.encode(value)
            .map_err(|reason| Failure::payload(format!("the {what} cannot be written: {reason}")))
    }

    /// Reads what belongs to a task: what cannot be read fails it, and names what it was.
    pub(crate) fn read<T: DeserializeOwned>(&self, what: &str, text: Option<&str>) -> Result<T> {
        self.decode(text)
            .map_err(|reason| Failure::payload(format!("the {what} {reason}")))
    }

    /// Absent and empty text read as `null`.
    pub(crate) fn decode<T: DeserializeOwned>(
        &self,
        payload: Option<&str>,
    ) -> std::result::Result<T, String> {
        let read = |error: serde_json::Error| {
            format!("cannot be read as {}: {error}", std::any::type_name::<T>())
        };
        let text = payload.filter(|text| !text.is_empty());
        match (&self.0, text) {
            (_, None) => serde_json::from_str(NULL).map_err(read),
            (None, Some(text)) => serde_json::from_str(text).map_err(read),
            (Some(converter), Some(text)) => {
                serde_json::from_value(converter.decode(text)?).map_err(read)
            }
        }
    }
}
