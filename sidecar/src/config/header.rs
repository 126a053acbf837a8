//! Additions and removals of headers.

use http::{HeaderName, HeaderValue};

/// What to do with the headers of a request or response, in Envoy's order: removals of a level after its additions.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutations {
    /// Additions in the order of the configuration.
    pub add: Box<[HeaderAddition]>,
    /// Names to remove.
    pub remove: Box<[HeaderName]>,
}

impl HeaderMutations {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Envoy's `HeaderValueOption`.
#[derive(Debug, Clone)]
pub struct HeaderAddition {
    /// Name of the header. `Host` and names that start with `:` are refused when the configuration is read.
    pub name: HeaderName,
    /// Its value. Command operators (`%DOWNSTREAM_REMOTE_ADDRESS%`) are parsed when the configuration is read.
    pub value: HeaderTemplate,
    /// What happens to a header of the same name.
    pub action: AppendAction,
    /// Add the header also if its value comes out empty.
    pub keep_empty_value: bool,
}

/// The value of an added header.
#[derive(Debug, Clone)]
pub enum HeaderTemplate {
    /// The same for every request.
    Fixed(HeaderValue),
    /// Contains command operators, in the grammar of the access log.
    Format(super::access_log::Format),
}

/// Envoy's `HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// `APPEND_IF_EXISTS_OR_ADD`
    AppendIfExistsOrAdd,
    /// `ADD_IF_ABSENT`
    AddIfAbsent,
    /// `OVERWRITE_IF_EXISTS_OR_ADD`
    OverwriteIfExistsOrAdd,
    /// `OVERWRITE_IF_EXISTS`
    OverwriteIfExists,
}
