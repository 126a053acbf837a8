//! Reading of a request for a join token.

use super::fields::{At, Scope};
use super::{tree, values};
use crate::model::problem::{Code, Problem};
use std::time::Duration;

/// A request for a join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The service whose instances may join with it.
    pub service: String,
    /// It is refused after so long, 1 s to 8760 h; 1 h when absent.
    pub ttl: Duration,
    /// So many instances may join with it, 1 to 100,000; 1 when absent.
    pub uses: u32,
}

/// Reads a request for a join token, `{"service", "ttl", "uses"}`.
///
/// # Errors
/// With every problem.
pub fn token_request(text: &str) -> Result<TokenRequest, Vec<Problem>> {
    let (mut trees, mut problems) = tree::parse(text);
    let mut scope = Scope::default();
    let request = match (trees.pop(), trees.is_empty()) {
        (Some(tree), true) => read(&mut scope, At { node: &tree, path: "" }),
        (None, _) if !problems.is_empty() => None,
        _ => {
            let reason =
                "one object is expected: {\"service\": NAME, \"ttl\": \"1h\", \"uses\": 1}";
            problems.push(Problem::new(Code::InvalidValue, reason));
            None
        }
    };
    problems.append(&mut scope.problems);
    request.filter(|_| problems.is_empty()).ok_or(problems)
}

fn read(scope: &mut Scope, at: At<'_>) -> Option<TokenRequest> {
    scope.mapping(at, |fields| {
        let service = fields.required("service", values::name);
        let ttl = fields.optional("ttl", |scope, at| {
            let ttl = values::duration_from(scope, at, Duration::from_secs(1))?;
            if ttl > Duration::from_secs(365 * 24 * 3600) {
                scope.invalid(at, "longer than a year (8760h)");
            }
            Some(ttl)
        });
        let uses = fields.optional("uses", |scope, at| values::number(scope, at, 1..=100_000));
        Some(TokenRequest {
            service: service?,
            ttl: ttl.unwrap_or(Duration::from_secs(3600)),
            uses: uses.unwrap_or(1),
        })
    })
}
