//! How answers of our own are changed before they leave (`local_reply_config`).

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::access_log::LineFormat;
use super::header::HeaderMutations;
use super::matcher::HeaderMatcher;

/// A validated `LocalReplyConfig`.
#[derive(Debug, Clone)]
pub struct LocalReplies {
    /// The first whose filter takes an answer changes it.
    pub mappers: Vec<ReplyMapper>,
    /// How bodies are written, where no mapper says; `None`: as they are.
    pub format: Option<ReplyFormat>,
}

/// A validated `ResponseMapper`.
#[derive(Debug, Clone)]
pub struct ReplyMapper {
    /// Which answers it takes.
    pub filter: ReplyFilter,
    /// Their new status.
    pub status: Option<StatusCode>,
    /// Their new body.
    pub body: Option<Bytes>,
    /// How their body is written.
    pub format: Option<ReplyFormat>,
    /// Headers that they get.
    pub headers: HeaderMutations,
}

/// How a body is written.
#[derive(Debug, Clone)]
pub struct ReplyFormat {
    /// Text or JSON; `%LOCAL_REPLY_BODY%` is the body as it was.
    pub line: LineFormat,
    /// What is missing leaves no trace.
    pub omit_empty_values: bool,
    /// Its type. Default `text/plain`, or `application/json`.
    pub content_type: HeaderValue,
}

/// Which answers a mapper takes: the filters of access logs that make sense here.
#[derive(Debug, Clone)]
pub enum ReplyFilter {
    /// By status.
    Status(Comparison, u32),
    /// By a header of the request.
    Header(HeaderMatcher),
    /// With one of these response flags, by their short names; empty: with any.
    Flags(Vec<Box<str>>),
    /// If all of these do.
    And(Vec<ReplyFilter>),
    /// If any of these does.
    Or(Vec<ReplyFilter>),
}

/// Envoy's `ComparisonFilter.Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `EQ`
    Equal,
    /// `GE`
    AtLeast,
    /// `LE`
    AtMost,
    /// `NE`
    NotEqual,
}
