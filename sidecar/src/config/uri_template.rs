//! Paths by template: `/video/{id}/*`, and what they are rewritten to.

use regex::bytes::Regex;

/// A validated template of `path_match_policy`, compiled. Groups of the regex are the variables.
#[derive(Debug, Clone)]
pub struct UriTemplate(pub Regex);

/// A validated template of `path_rewrite_policy`: literals, and variables of the template that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplateRewrite(pub Vec<RewritePart>);

/// A part of a rewritten path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewritePart {
    /// As it stands.
    Literal(Box<str>),
    /// What this variable matched.
    Variable(Box<str>),
}
