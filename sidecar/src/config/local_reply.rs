//! How answers of our own are changed before they leave (`local_reply_config`).

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::access_log::{Filter, LineFormat};
use super::header::HeaderMutations;

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
    /// Which answers it takes: a filter of access logs, asked while the exchange is not over.
    pub filter: Filter,
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
