//! Join tokens: `orj1.` and base64url of a JSON object with everything that joining takes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Error;
use crate::cli::Args;

/// The variable that may hold a token.
const VARIABLE: &str = "OUTRIGGER_JOIN";
const PREFIX: &str = "orj1.";
/// What is done with the file of `--join-file`, for messages.
pub(super) const READ: &str = "read the join token in";

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Not what `outrigger token create` prints.
    #[error("does not begin with {PREFIX:?}: expected what `outrigger token create` printed")]
    Prefix,
    /// Cut off, or changed.
    #[error("is damaged ({0}): copy it whole, without spaces or line breaks inside")]
    Damaged(String),
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The token as it is sent.
    pub(super) text: String,
    /// `HOST:PORT` of discovery.
    pub(super) control_plane: String,
    /// SHA-256 of the public key (SPKI) of the root.
    pub(super) pin: [u8; 32],
    /// Trust domain.
    pub(super) trust_domain: String,
    /// The service that it is for.
    pub(super) service: String,
}

#[derive(Deserialize)]
struct Content {
    cp: String,
    pin: String,
    td: String,
    svc: String,
}

impl Token {
    /// The token among the arguments, in the file they name, or in the environment.
    pub(super) fn find(args: &Args) -> Result<Option<Self>, Error> {
        let text = if let Some(text) = &args.join {
            Some(text.clone())
        } else if let Some(path) = &args.join_file {
            let text = std::fs::read_to_string(path).map_err(|source| Error::File {
                action: READ,
                path: path.clone(),
                source,
            })?;
            Some(text)
        } else {
            from_environment()
        };
        Ok(text.map(|text| Self::parse(text.trim())).transpose()?)
    }

    /// Reads a token.
    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        let damaged = |reason: String| TokenError::Damaged(reason);
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|error| damaged(error.to_string()))?;
        let Content { cp, pin, td, svc } =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        let pin = URL_SAFE_NO_PAD.decode(pin).map_err(|error| damaged(error.to_string()))?;
        let pin = pin.try_into().map_err(|_| damaged("pin is no SHA-256".to_owned()))?;
        Ok(Self { text: text.to_owned(), control_plane: cp, pin, trust_domain: td, service: svc })
    }
}

/// The token in the environment.
pub(super) fn from_environment() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(json: &str) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    #[test]
    fn a_token_says_where_whom_and_for_what() {
        let pin = URL_SAFE_NO_PAD.encode([7u8; 32]);
        let text = token(&format!(
            r#"{{"cp":"127.0.0.1:7701","pin":"{pin}","td":"outrigger.local","svc":"api","id":"1","secret":"s"}}"#
        ));
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.control_plane, "127.0.0.1:7701");
        assert_eq!(token.pin, [7; 32]);
        assert_eq!((&*token.trust_domain, &*token.service), ("outrigger.local", "api"));
        assert_eq!(token.text, text);
    }

    #[test]
    fn what_is_no_token_is_told_from_a_token_that_was_cut() {
        assert_eq!(Token::parse("hello"), Err(TokenError::Prefix));
        for cut in
            ["orj1.", "orj1.e30", "orj1.%%%", &token(r#"{"cp":"x","pin":"AA","td":"t","svc":"s"}"#)]
        {
            assert!(matches!(Token::parse(cut), Err(TokenError::Damaged(_))), "{cut}");
        }
    }
}
