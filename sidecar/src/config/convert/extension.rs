//! Discovered configuration of HTTP filters: `TypedExtensionConfig`, and the `ExtensionConfigSource` that asks for it.

use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig};
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::extension::{DiscoveredFilter, Extension};

use super::common::{required, text};
use super::{config_source, extensions, http_filter};

/// What ECDS says of a filter.
pub(super) fn convert(problems: &mut Problems, proto: TypedExtensionConfig) -> Option<Extension> {
    let TypedExtensionConfig { name, typed_config } = proto;
    let name = text(problems, "name", name);
    let config = required(problems, "typed_config", typed_config)?;
    problems.field("typed_config", |problems| of_any(problems, &name, &config))
}

fn of_any(problems: &mut Problems, name: &str, config: &Any) -> Option<Extension> {
    let message = extensions::message_name(config);
    let kind = if extensions::is_harmless_http(config) {
        None
    } else {
        Some(http_filter::kind(problems, config, false)?)
    };
    Some(Extension { name: name.into(), message: message.into(), kind })
}

/// Where the configuration of the filter `filter` comes from.
pub(super) fn source(
    problems: &mut Problems,
    filter: &str,
    proto: ExtensionConfigSource,
) -> Option<DiscoveredFilter> {
    let ExtensionConfigSource {
        config_source,
        default_config,
        apply_default_config_without_warming,
        type_urls,
    } = proto;
    let source = required(problems, "config_source", config_source).and_then(|proto| {
        problems.field("config_source", |problems| config_source::convert(problems, proto))
    });
    if type_urls.is_empty() {
        problems.reject_field("type_urls", "must have at least one entry");
    }
    let mut messages: Vec<String> = Vec::with_capacity(type_urls.len());
    for (index, url) in type_urls.iter().enumerate() {
        let message = any::message_name(url);
        if !http_filter::is_supported(message) {
            problems.element("type_urls", index, |problems| {
                problems.reject(format!(
                    "{message} is no HTTP filter of this version of Outrigger that can be discovered"
                ));
            });
        }
        messages.push(message.to_owned());
    }
    let default = default_config.and_then(|config| {
        problems.field("default_config", |problems| {
            let message = extensions::message_name(&config);
            if !messages.contains(&message) {
                problems.reject(format!("is a {message}, which is not one of type_urls"));
            }
            of_any(problems, filter, &config)
        })
    });
    if apply_default_config_without_warming && default.is_none() {
        problems.reject_field(
            "apply_default_config_without_warming",
            "there is no default_config that could be applied",
        );
    }
    Some(DiscoveredFilter {
        source: source?,
        default: default.map(Arc::new),
        without_warming: apply_default_config_without_warming,
        messages: messages.into_iter().map(Into::into).collect(),
    })
}
