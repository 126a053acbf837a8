//! Who may do what: bearer tokens with a role each, from a file. Without the file, whoever reaches the API may do
//! everything.

use super::failure::Failure;
use super::{Api, Peer};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What somebody may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything, and try out changes.
    Viewer,
    /// Change the configuration.
    Editor,
    /// Decide who is a member: join tokens, revocation, roots; and read the audit log.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        })
    }
}

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Names and roles by the hash of their token: looking up a hash tells nothing about a token by the time it takes.
#[derive(Debug, Default)]
pub struct Roles(HashMap<[u8; 32], (Arc<str>, Role)>);

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    /// It cannot be read.
    #[error("cannot read the API tokens in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("the API tokens in {}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    role: Role,
    token: String,
}

impl Roles {
    /// Reads `tokens: [{name: ci, role: viewer|editor|admin, token: ...}]` from a YAML or JSON file that only its owner
    /// can read.
    ///
    /// # Errors
    /// See [`RolesError`].
    pub fn read(path: &Path) -> Result<Self, RolesError> {
        let failed = |source| RolesError::Read { path: path.to_owned(), source };
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        let wrong = |reason: String| RolesError::Content { path: path.to_owned(), reason };
        if mode & 0o077 != 0 {
            return Err(wrong(format!(
                "others may read them (mode {:o}): chmod 600 it",
                mode & 0o777
            )));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let mut roles = HashMap::new();
        for Token { name, role, token } in file.tokens {
            if name.is_empty() {
                return Err(
                    "a token without a name: the history would not say who it was".to_owned()
                );
            }
            if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "the token of `{name}` is not {SHORTEST} or more visible ASCII characters; make one with: openssl rand -hex 32"
                ));
            }
            if roles.insert(hash(&token), (Arc::from(name.as_str()), role)).is_some() {
                return Err(format!("the token of `{name}` is somebody else's too"));
            }
        }
        if roles.is_empty() {
            return Err("there is none: nobody could do anything".to_owned());
        }
        Ok(Self(roles))
    }

    fn of(&self, headers: &HeaderMap) -> Option<(Arc<str>, Role)> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        let known = self.0.get(&hash(token.trim()))?;
        scheme.eq_ignore_ascii_case("bearer").then(|| known.clone())
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The role that a request needs; `None`: anybody may ask that.
fn needed(method: &Method, path: &str, query: &str) -> Option<Role> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match path.strip_prefix("/v1/") {
        None if matches!(path, "/healthz" | "/readyz" | "/openapi.json") => None,
        Some("audit") => Some(Role::Admin),
        _ if reads => Some(Role::Viewer),
        Some("apply") if query.split('&').any(|pair| pair == "dryRun=true") => Some(Role::Viewer),
        Some(rest)
            if rest == "tokens" || rest.starts_with("ca/") || rest.starts_with("identities/") =>
        {
            Some(Role::Admin)
        }
        _ => Some(Role::Editor),
    }
}

/// Lets through who may do what he asks for, and notes who it is.
pub(super) async fn authorize(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(roles) = &api.roles else { return next.run(request).await };
    let (method, path) = (request.method(), request.uri().path().to_owned());
    let Some(needed) = needed(method, &path, request.uri().query().unwrap_or_default()) else {
        return next.run(request).await;
    };
    let Some((name, role)) = roles.of(request.headers()) else {
        let detail = "this API needs a token: `Authorization: Bearer TOKEN` (OUTRIGGER_TOKEN for the command line)";
        let failure =
            Failure::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Unauthenticated", detail);
        let mut response = failure.into_response();
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        return response;
    };
    let what = format!("{method} {path}");
    if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
        peer.name = Some(name.clone());
        if role < needed {
            let peer = peer.clone();
            if let Err(failure) = api.audit(&peer, "refused", &what).await {
                return failure.into_response();
            }
        }
    }
    if role < needed {
        let detail = format!("{what} needs the role {needed}; `{name}` is {role}");
        return Failure::new(StatusCode::FORBIDDEN, "role", "Forbidden", detail).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_decides_which_role_is_needed() {
        let needed = |method: Method, path: &str, query: &str| needed(&method, path, query);
        for (method, path, query, role) in [
            (Method::GET, "/healthz", "", None),
            (Method::GET, "/openapi.json", "", None),
            (Method::GET, "/metrics", "", Some(Role::Viewer)),
            (Method::GET, "/v1/services/api", "", Some(Role::Viewer)),
            (Method::GET, "/v1/identities", "", Some(Role::Viewer)),
            (Method::POST, "/v1/apply", "dryRun=true", Some(Role::Viewer)),
            (Method::POST, "/v1/apply", "dryRun=false", Some(Role::Editor)),
            (Method::PUT, "/v1/services/api", "", Some(Role::Editor)),
            (Method::DELETE, "/v1/services/api", "", Some(Role::Editor)),
            (Method::POST, "/v1/rollback/3", "", Some(Role::Editor)),
            (Method::POST, "/v1/tokens", "", Some(Role::Admin)),
            (Method::POST, "/v1/ca/rotate", "", Some(Role::Admin)),
            (Method::POST, "/v1/identities/api/revoke", "", Some(Role::Admin)),
            (Method::GET, "/v1/audit", "", Some(Role::Admin)),
            (Method::POST, "/elsewhere", "", Some(Role::Editor)),
        ] {
            assert_eq!(needed(method.clone(), path, query), role, "{method} {path}?{query}");
        }
    }

    #[test]
    fn a_file_that_would_let_in_the_wrong_ones_is_refused() {
        for (text, reason) in [
            ("tokens: []", "nobody"),
            ("tokens: [{name: a, role: admin, token: short}]", "16 or more"),
            ("tokens: [{name: '', role: admin, token: 0123456789abcdef}]", "without a name"),
            ("tokens: [{name: a, role: root, token: 0123456789abcdef}]", "root"),
            ("tokens: [{name: a, role: admin, token: 0123456789abcdef, x: 1}]", "x"),
            (
                "tokens: [{name: a, role: admin, token: 0123456789abcdef}, {name: b, role: viewer, token: 0123456789abcdef}]",
                "somebody else",
            ),
        ] {
            let error = Roles::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.yaml");
        std::fs::write(&path, "tokens: [{name: a, role: admin, token: 0123456789abcdef}]").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Roles::read(&path)
        };
        assert!(mode(0o640).unwrap_err().to_string().contains("chmod 600"));
        assert!(mode(0o600).is_ok());
    }
}
