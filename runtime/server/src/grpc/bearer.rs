//! The optional bearer token (S-1.8). It knows one secret and no identities; finer rights are not its business.

use std::fs;
use std::hint::black_box;

use tonic::codegen::http::HeaderMap;

use crate::config::Bearer;
use crate::error::Error;

const SCHEME: &str = "bearer ";

/// The token that calls have to bring.
pub(crate) struct Token(Vec<u8>);

impl Token {
    /// Reads the token that a setting names.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the token is empty or could not be sent as a header.
    pub(crate) fn read(bearer: &Bearer) -> Result<Self, Error> {
        let text = match bearer {
            Bearer::Token(token) => token.clone(),
            Bearer::File(path) => fs::read_to_string(path).map_err(|source| Error::File {
                name: "bearer",
                path: path.clone(),
                source,
            })?,
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let cause =
                "the bearer token is one or more printable ASCII characters without white space"
                    .to_owned();
            return Err(Error::Setting {
                name: "bearer",
                cause,
            });
        }
        Ok(Self(token.as_bytes().to_vec()))
    }

    /// Whether a call's `authorization` is this token. Takes the same time wherever a wrong one differs.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers
            .get("authorization")
            .and_then(|value| value.as_bytes().split_at_checked(SCHEME.len()))
            .is_some_and(|(scheme, token)| {
                scheme.eq_ignore_ascii_case(SCHEME.as_bytes())
                    && is_equal(&self.0, token.trim_ascii())
            })
    }
}

/// Compares every byte. Only the length can be learnt from the time it takes.
fn is_equal(expected: &[u8], given: &[u8]) -> bool {
    expected.len() == given.len()
        && expected
            .iter()
            .zip(given)
            .fold(0, |difference, (a, b)| black_box(difference | (a ^ b)))
            == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    fn accepts(header: Option<&str>) -> bool {
        let token = Token::read(&Bearer::Token("abc-123".to_owned()))
            .ok()
            .unwrap();
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("authorization", header.parse().unwrap());
        }
        token.is_in(&headers)
    }

    /// S-1.8.
    #[test]
    fn only_the_token_itself_is_accepted() {
        assert!(accepts(Some("Bearer abc-123")));
        assert!(accepts(Some("bearer  abc-123 ")));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer abc-124",
            "Bearer abc-12",
            "Bearer abc-1234",
            "abc-123",
            "Basic abc-123",
        ] {
            assert!(!accepts(Some(wrong)), "{wrong}");
        }
        assert!(!accepts(None));
    }

    #[test]
    fn a_token_file_may_end_with_a_line_break() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc-123\n").unwrap();
        assert_eq!(
            Token::read(&Bearer::File(file.path().to_owned()))
                .ok()
                .unwrap()
                .0,
            b"abc-123"
        );
    }

    #[test]
    fn a_token_that_protects_nothing_is_refused() {
        for token in ["", " \n", "a b", "ä"] {
            assert!(Token::read(&Bearer::Token(token.to_owned())).is_err());
        }
        let missing = Token::read(&Bearer::File("/nowhere/token".into()))
            .err()
            .unwrap();
        assert!(missing.to_string().contains("/nowhere/token"));
    }
}
