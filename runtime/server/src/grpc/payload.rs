//! The size of what clients send: every string of a request against one limit (S-14.2, S-14.3).
//!
//! A payload is never looked into (S-0.5). What workers send is not checked here: there, too much has to become a failure
//! rather than an error (S-14.4).

use std::collections::BTreeMap;

use mainspring_proto::TraceContext;
use tonic::Status;

/// The longest string that a client's request may hold, in UTF-8 bytes.
#[derive(Clone, Copy)]
pub(crate) struct PayloadLimit(pub(crate) usize);

impl PayloadLimit {
    /// Refuses a string over the limit, naming the field, its size and the limit.
    pub(crate) fn check(self, field: &str, text: &str) -> Result<(), Status> {
        let (bytes, limit) = (text.len(), self.0);
        if bytes <= limit {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "{field} has {bytes} bytes, the limit is {limit} bytes"
        )))
    }

    /// The same for a field that may be absent.
    pub(crate) fn check_given(self, field: &str, text: Option<&str>) -> Result<(), Status> {
        text.map_or(Ok(()), |text| self.check(field, text))
    }

    /// The same for tags: they travel together in every work item, so they count as one string.
    pub(crate) fn check_tags(self, tags: &BTreeMap<String, String>) -> Result<(), Status> {
        let (bytes, limit) = (
            tags.iter()
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>(),
            self.0,
        );
        if bytes <= limit {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "tags have {bytes} bytes, the limit is {limit} bytes"
        )))
    }

    /// The same for a trace context.
    pub(crate) fn check_trace(self, trace: Option<&TraceContext>) -> Result<(), Status> {
        let Some(trace) = trace else { return Ok(()) };
        self.check("traceParent", &trace.trace_parent)?;
        self.check("spanID", &trace.span_id)?;
        self.check_given("traceState", trace.trace_state.as_deref())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic::Code;

    use super::*;

    /// S-14.3.
    #[test]
    fn a_string_over_the_limit_is_refused_with_field_size_and_limit() {
        let limit = PayloadLimit(8);
        assert!(limit.check("input", "12345678").is_ok());
        let status = limit.check("input", "123456789").unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "input has 9 bytes, the limit is 8 bytes");
        assert!(limit.check_given("input", None).is_ok());
    }

    /// S-14.2.
    #[test]
    fn bytes_are_counted_rather_than_characters() {
        assert!(PayloadLimit(3).check("input", "ää").is_err());
    }

    #[test]
    fn tags_count_together() {
        let tags = BTreeMap::from([
            ("a".repeat(5), "b".repeat(5)),
            ("c".to_owned(), String::new()),
        ]);
        assert!(PayloadLimit(11).check_tags(&tags).is_ok());
        assert_eq!(
            PayloadLimit(10).check_tags(&tags).unwrap_err().message(),
            "tags have 11 bytes, the limit is 10 bytes"
        );
    }
}
