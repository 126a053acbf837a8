//! The last good resources on disk: a sidecar that starts while its control plane is away serves from them.
//!
//! One file a type, replaced whole (written beside, synced, renamed). Each begins with a format version and a checksum: a
//! file that is torn, from another version, or not ours is reported and ignored, never half used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use outrigger_proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use outrigger_proto::google::protobuf::Any;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{Kind, Resources};

/// What a file begins with: a mark and the version of the format.
const HEADER: &[u8; 8] = b"ORXDS\0\0\x01";
const CHECKSUM: usize = 32;

/// A folder of kept resources, and the thread that writes to it: syncing a file can take long, and the control thread
/// must not wait for it.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    writes: Sender<(Kind, Vec<u8>)>,
    writer: JoinHandle<()>,
}

/// A resource as it was kept: type, name, version, message.
pub(crate) type Kept = (Kind, Arc<str>, String, Any);

impl Disk {
    /// Opens the folder, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// If it cannot be made, or no thread can be started.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (writes, pending) = channel::<(Kind, Vec<u8>)>();
        let to = folder.clone();
        let writer = thread::Builder::new().name("xds-disk".to_owned()).spawn(move || {
            for (kind, content) in pending {
                if let Err(error) = replace(&to, &file_name(kind), &content) {
                    tracing::error!(%kind, %error, "cannot keep resources on disk");
                }
            }
        })?;
        Ok(Self { folder, writes, writer })
    }

    /// What is kept. What cannot be used is reported and left out.
    pub(crate) fn load(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for kind in Kind::ALL {
            let path = self.folder.join(file_name(kind));
            let content = match fs::read(&path) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot read kept resources");
                    continue;
                }
            };
            match decode(kind, &content) {
                Ok(resources) => kept.extend(resources),
                Err(reason) => {
                    tracing::error!(path = %path.display(), reason, "kept resources are ignored");
                }
            }
        }
        kept
    }

    /// Keeps what has changed since the last call.
    pub(crate) fn save(&self, resources: &mut Resources) {
        for kind in Kind::ALL {
            if resources.take_changed(kind) {
                // The thread lives as long as its sender.
                let _ = self.writes.send((kind, encode(kind, resources)));
            }
        }
    }

    /// Waits until everything is written.
    pub(crate) fn finish(self) {
        drop(self.writes);
        if self.writer.join().is_err() {
            tracing::error!("the thread that keeps resources on disk ended with a panic");
        }
    }
}

fn file_name(kind: Kind) -> String {
    format!("{}.xds", kind.name().replace(' ', "-"))
}

fn encode(kind: Kind, resources: &Resources) -> Vec<u8> {
    let kept = resources.of(kind).filter_map(|(name, entry)| {
        let accepted = entry.accepted()?;
        Some(Resource {
            name: name.to_string(),
            version: accepted.version.clone(),
            resource: Some(accepted.body.clone()),
            ..Resource::default()
        })
    });
    let message = DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        resources: kept.collect(),
        ..DeltaDiscoveryResponse::default()
    };
    let payload = message.encode_to_vec();
    let mut content = HEADER.to_vec();
    content.extend_from_slice(&Sha256::digest(&payload));
    content.extend_from_slice(&payload);
    content
}

fn decode(kind: Kind, content: &[u8]) -> Result<Vec<Kept>, &'static str> {
    let rest = content.strip_prefix(HEADER).ok_or("of another format or version")?;
    let (checksum, payload) = rest.split_at_checked(CHECKSUM).ok_or("cut short")?;
    if Sha256::digest(payload).as_slice() != checksum {
        return Err("the checksum does not match");
    }
    let message = DeltaDiscoveryResponse::decode(payload).map_err(|_| "does not decode")?;
    if message.type_url != kind.type_url() {
        return Err("holds another type of resource");
    }
    let kept = message.resources.into_iter().filter_map(|resource| {
        Some((kind, resource.name.into(), resource.version, resource.resource?))
    });
    Ok(kept.collect())
}

/// Replaces a file whole: after a crash there is the old one or the new one.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::testing;

    fn resources() -> Resources {
        let mut resources = Resources::default();
        for name in ["a", "b"] {
            let body = testing::pack(&testing::eds_cluster(name));
            resources.accept(Kind::Cluster, &name.into(), "7", body);
        }
        resources
    }

    fn saved(folder: &Path) {
        let disk = Disk::open(folder.to_owned()).unwrap();
        disk.save(&mut resources());
        disk.finish();
    }

    #[test]
    fn what_was_saved_is_loaded_with_names_and_versions() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        let kept = Disk::open(folder.path().to_owned()).unwrap().load();
        let names: Vec<(&str, &str)> =
            kept.iter().map(|(_, name, version, _)| (&**name, &**version)).collect();
        assert_eq!(names, [("a", "7"), ("b", "7")]);
        assert_eq!(kept[0].3, testing::pack(&testing::eds_cluster("a")));
    }

    #[test]
    fn only_what_changed_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        let mut resources = resources();
        disk.save(&mut resources);
        assert!(!resources.take_changed(Kind::Cluster));
        disk.finish();
        assert!(folder.path().join("cluster.xds").exists());
        assert!(!folder.path().join("listener.xds").exists());
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        let content = fs::read(folder.path().join("cluster.xds")).unwrap();
        assert!(decode(Kind::Cluster, &content).is_ok());
        for index in 0..content.len() {
            let mut damaged = content.clone();
            damaged[index] ^= 1;
            assert!(decode(Kind::Cluster, &damaged).is_err(), "byte {index}");
            assert!(decode(Kind::Cluster, &content[..index]).is_err(), "cut at {index}");
        }
        assert!(decode(Kind::Listener, &content).is_err(), "of another type");
    }

    #[test]
    fn a_damaged_file_costs_its_own_type_only() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        fs::write(folder.path().join("listener.xds"), b"not ours").unwrap();
        assert_eq!(Disk::open(folder.path().to_owned()).unwrap().load().len(), 2);
    }

    #[test]
    fn files_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("xds");
        saved(&inner);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&inner.join("cluster.xds")), 0o600);
    }
}
