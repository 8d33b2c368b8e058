//! JSON schemas: derived from Rust types, and checked. The only file here that names `schemars` and `jsonschema`.

use std::fmt;

use serde_json::Value;

/// A type whose JSON schema is known: `#[derive(schemars::JsonSchema)]`.
///
/// ```
/// #[derive(schemars::JsonSchema)]
/// struct Weather {
///     /// The city's name.
///     city: String,
/// }
///
/// let schema = mainspring_agents::json_schema_of::<Weather>();
/// assert_eq!(schema["properties"]["city"]["description"], "The city's name.");
/// ```
pub fn json_schema_of<T: schemars::JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    if let Value::Object(members) = &mut schema {
        // Told to the model at each call, and of no use to it.
        members.remove("$schema");
    }
    schema
}

/// How many objections are told at once: a model mends its reply from a few as well as from a thousand.
const OBJECTIONS_MAX: usize = 5;

/// Longest objection, in bytes: they quote what they object to.
const OBJECTION_BYTES_MAX: usize = 500;

/// A schema that is ready to check with.
pub(crate) struct Schema {
    value: Value,
    validator: jsonschema::Validator,
}

impl fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Schema({})", self.value)
    }
}

impl Schema {
    /// Reads it. References to other documents are not followed.
    pub(crate) fn new(value: Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&value).map_err(|error| error.to_string())?;
        Ok(Self { value, validator })
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// What does not fit, one sentence each; empty: it fits.
    pub(crate) fn objections(&self, value: &Value) -> Vec<String> {
        let errors = self.validator.iter_errors(value).take(OBJECTIONS_MAX);
        errors
            .map(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() {
                    "the whole"
                } else {
                    &place
                };
                format!(
                    "{place}: {}",
                    beginning(&error.to_string(), OBJECTION_BYTES_MAX)
                )
            })
            .collect()
    }
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn an_objection_names_the_place_and_quotes_no_more_than_it_may() {
        let schema = Schema::new(json!({
            "type": "object",
            "properties": {"count": {"type": "integer"}},
            "required": ["count"],
        }))
        .unwrap();
        assert!(schema.objections(&json!({"count": 3})).is_empty());
        let objections = schema.objections(&json!({"count": "x".repeat(10_000)}));
        assert_eq!(objections.len(), 1);
        assert!(objections[0].starts_with("/count: "), "{}", objections[0]);
        assert!(objections[0].len() < 600);
        let objections = schema.objections(&json!("text"));
        assert!(objections[0].starts_with("the whole: "), "{objections:?}");
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        assert!(Schema::new(json!({"type": "no such type"})).is_err());
    }
}
