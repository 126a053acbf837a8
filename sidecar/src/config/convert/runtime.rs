//! The layers of the runtime.

use std::collections::HashSet;
use std::path::PathBuf;

use outrigger_proto::envoy::config::bootstrap::v3 as proto;
use outrigger_proto::envoy::config::bootstrap::v3::runtime_layer::{
    AdminLayer, DiskLayer, LayerSpecifier, RtdsLayer,
};
use outrigger_proto::envoy::service::runtime::v3::Runtime;
use outrigger_proto::google::protobuf::Struct;

use crate::config::Problems;
use crate::config::runtime::{LayerSource, RuntimeLayer, Values, of_struct};

use super::common::{required, text};
use super::config_source;

/// What RTDS says of a layer.
pub(super) fn resource(problems: &mut Problems, proto: Runtime) -> Values {
    let Runtime { name, layer } = proto;
    text(problems, "name", name);
    values(problems, "layer", layer.unwrap_or_default())
}

fn values(problems: &mut Problems, field: &str, proto: Struct) -> Values {
    match of_struct(proto) {
        Ok(values) => values,
        Err(rejected) => {
            for rejected in rejected {
                problems
                    .element(field, &rejected.path, |problems| problems.reject(rejected.reason));
            }
            Values::new()
        }
    }
}

/// `layered_runtime`. Where nothing is said there is a layer for the admin interface, as in Envoy.
pub(super) fn layers(
    problems: &mut Problems,
    proto: Option<proto::LayeredRuntime>,
    service_cluster: &str,
) -> Vec<RuntimeLayer> {
    let proto::LayeredRuntime { layers } = proto.unwrap_or_default();
    if layers.is_empty() {
        return vec![RuntimeLayer { name: "".into(), source: LayerSource::Admin }];
    }
    let mut names = HashSet::new();
    let mut has_admin = false;
    let layers = layers.into_iter().enumerate().filter_map(|(index, layer)| {
        problems.element("layers", index, |problems| {
            let proto::RuntimeLayer { name, layer_specifier } = layer;
            let name = text(problems, "name", name);
            if !name.is_empty() && !names.insert(name.clone()) {
                problems.reject_field("name", format!("another layer is named {name:?} already"));
            }
            let source = match layer_specifier {
                Some(LayerSpecifier::StaticLayer(proto)) => {
                    LayerSource::Static(values(problems, "static_layer", proto))
                }
                Some(LayerSpecifier::AdminLayer(AdminLayer {})) => {
                    if std::mem::replace(&mut has_admin, true) {
                        problems.reject_field("admin_layer", "there is one already");
                    }
                    LayerSource::Admin
                }
                Some(LayerSpecifier::DiskLayer(proto)) => problems
                    .field("disk_layer", |problems| disk(problems, proto, service_cluster))?,
                Some(LayerSpecifier::RtdsLayer(proto)) => {
                    problems.field("rtds_layer", |problems| rtds(problems, proto))?
                }
                None => {
                    problems.reject(
                        "one of static_layer, disk_layer, admin_layer, rtds_layer is required",
                    );
                    return None;
                }
            };
            Some(RuntimeLayer { name: name.into(), source })
        })
    });
    layers.collect()
}

fn disk(problems: &mut Problems, proto: DiskLayer, service_cluster: &str) -> Option<LayerSource> {
    let DiskLayer { symlink_root, append_service_cluster, subdirectory } = proto;
    let watched = PathBuf::from(text(problems, "symlink_root", symlink_root));
    if watched.parent().is_none_or(|folder| !folder.is_dir()) {
        let reason = format!("{} is in no folder that could be watched", watched.display());
        problems.reject_field("symlink_root", reason);
        return None;
    }
    let mut folder = watched.join(subdirectory);
    if append_service_cluster {
        folder.push(service_cluster);
    }
    Some(LayerSource::Disk { watched, folder })
}

fn rtds(problems: &mut Problems, proto: RtdsLayer) -> Option<LayerSource> {
    let RtdsLayer { name, rtds_config } = proto;
    let name = text(problems, "name", name);
    let source = required(problems, "rtds_config", rtds_config)?;
    let source =
        problems.field("rtds_config", |problems| config_source::convert(problems, source))?;
    Some(LayerSource::Rtds { name: name.into(), source })
}
