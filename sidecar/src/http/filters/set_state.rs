//! Notes of a request that the configuration dictates: `envoy.filters.http.set_metadata` and `set_filter_state`.

use std::sync::Arc;

use super::Passage;
use crate::access_log::{Headers, render};
use crate::config::metadata::{SetFilterState, SetMetadata, StateKind, StateText};
use crate::stats::SetMetadataCells;

/// Writes metadata.
pub(super) fn metadata(config: &SetMetadata, stats: &SetMetadataCells, passage: &mut Passage<'_>) {
    let state = passage.exchange.state();
    for entry in &config.0 {
        if !entry.write(&mut state.metadata) {
            stats.overwrite_denied.inc();
        }
    }
}

/// Writes filter state.
pub(super) fn filter_state(config: &Arc<SetFilterState>, passage: &mut Passage<'_>) {
    passage.exchange.collect(passage.request);
    for value in &config.values {
        let mut text = Vec::new();
        let mut record = passage.exchange.record_for_additions();
        record.request_headers = Headers::Map(&passage.request.headers);
        let missing: &[u8] = if value.omit_empty_values { b"" } else { b"-" };
        render(&value.value, &record, missing, &mut text);
        // As in Envoy bytes that are no text are replaced.
        let text = String::from_utf8_lossy(&text);
        if text.is_empty() && value.skip_if_empty {
            continue;
        }
        let kind = if value.hashable { StateKind::Hashable } else { StateKind::Text };
        let text = StateText { text: text.into(), kind };
        passage.exchange.state().filter_state.set(&value.key, text);
    }
    passage.rematch |= config.clear_route_cache;
}
