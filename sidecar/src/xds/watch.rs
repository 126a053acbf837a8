//! Notices that a file may have changed, by inotify on its folder.
//!
//! Envoy looks at renames only, which is how such files should be replaced. Here a file that is written in place counts
//! when its writer closes it, and a symbolic link on the way (as Kubernetes makes them) when it leads elsewhere. Where
//! inotify cannot help (no instance left, a network file system) the file is looked at every few seconds.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::config_source::{ConfigFile, WatchedDirectory};

/// How often a file is looked at without being told of a change.
const LOOK: Duration = Duration::from_secs(5);

/// Watches one file.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    /// It is to be read with every tick.
    is_polled: bool,
    inotify: Option<AsyncFd<OwnedFd>>,
    directory: Option<Directory>,
    look: Interval,
    /// The file as it was when a change was last told.
    seen: Option<Identity>,
    /// The file as it was when it was last looked at.
    looked: Option<Identity>,
}

/// The watch of `watched_directory`, and what counts there.
type Directory = (i32, ReadFlags);

/// What differs when a path leads to another file, or to one that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

fn inode(identity: Identity) -> (u64, u64) {
    (identity.device, identity.inode)
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(file: &ConfigFile) -> Self {
        let ConfigFile { path, watched_directory, poll_interval } = file;
        let opened = match poll_interval {
            Some(_) => None,
            None => Some(open(path, watched_directory.as_ref())),
        };
        let (inotify, directory) = match opened.transpose() {
            Ok(opened) => opened.unzip(),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot be watched: looking at it every 5 s");
                (None, None)
            }
        };
        let mut look = interval(poll_interval.unwrap_or(LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let seen = identity(path);
        Self {
            path: path.clone(),
            is_polled: poll_interval.is_some(),
            inotify,
            directory: directory.flatten(),
            look,
            seen,
            looked: seen,
        }
    }

    /// Waits until the file may have changed.
    pub(crate) async fn changed(&mut self) {
        loop {
            let told = match &self.inotify {
                None => {
                    self.look.tick().await;
                    None
                }
                Some(inotify) => tokio::select! {
                    about_file = events(inotify, &self.path, self.directory) => Some(about_file),
                    _ = self.look.tick() => None,
                },
            };
            let now = identity(&self.path);
            let has_changed = match told {
                // A link that leads elsewhere does so at once; what is written in place is told when it is complete.
                Some(about_file) => about_file || now.map(inode) != self.seen.map(inode),
                // Without having been told: once it looks the same twice, nobody is writing any more.
                None => self.is_polled || now != self.seen && now == self.looked,
            };
            self.looked = now;
            if has_changed {
                self.seen = now;
                return;
            }
        }
    }
}

fn open(
    path: &Path,
    watched: Option<&WatchedDirectory>,
) -> io::Result<(AsyncFd<OwnedFd>, Option<Directory>)> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let changes = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    inotify::add_watch(&inotify, folder, changes)?;
    let directory = match watched {
        Some(WatchedDirectory { path, watch_modify }) => {
            let writes = if *watch_modify { ReadFlags::CLOSE_WRITE } else { ReadFlags::empty() };
            let watch = inotify::add_watch(&inotify, path, changes)?;
            Some((watch, ReadFlags::MOVED_TO | writes))
        }
        None => None,
    };
    // Deprecated for types that may give another descriptor each time they are asked; an `OwnedFd` does not.
    #[allow(deprecated)]
    let inotify = AsyncFd::new(inotify)?;
    Ok((inotify, directory))
}

/// Waits for events, and tells whether one of them is about the file.
async fn events(inotify: &AsyncFd<OwnedFd>, path: &Path, directory: Option<Directory>) -> bool {
    let Ok(mut ready) = inotify.readable().await else { return false };
    let mut about_file = false;
    // It always ends with "would block": there is nothing more to read.
    let _ = ready.try_io(|inotify| -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        loop {
            let event = events.next()?;
            let is_file = path.file_name().is_some_and(|name| {
                event.file_name().is_some_and(|changed| changed.to_bytes() == name.as_bytes())
            });
            let in_directory = directory.is_some_and(|(watch, counts)| {
                event.wd() == watch && event.events().intersects(counts)
            });
            about_file |= is_file || in_directory;
        }
    });
    about_file
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        size: metadata.size(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(3);

    async fn is_told(watch: &mut Watch) -> bool {
        timeout(SOON, watch.changed()).await.is_ok()
    }

    fn watch(path: &Path, watched_directory: Option<&Path>) -> Watch {
        Watch::new(&ConfigFile {
            path: path.to_owned(),
            watched_directory: watched_directory
                .map(|path| WatchedDirectory { path: path.to_owned(), watch_modify: false }),
            poll_interval: None,
        })
    }

    #[tokio::test]
    async fn a_rename_over_the_file_and_a_write_to_it_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("lds.yaml"), folder.path().join("new"));
        fs::write(&path, "1").unwrap();
        let mut watch = watch(&path, None);
        fs::write(&other, "2").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(is_told(&mut watch).await, "a rename");
        fs::write(&path, "3").unwrap();
        assert!(is_told(&mut watch).await, "a write");
    }

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("lds.yaml"), version).unwrap();
        }
        // As Kubernetes mounts a ConfigMap.
        symlink("1", at("..data")).unwrap();
        symlink("..data/lds.yaml", at("lds.yaml")).unwrap();
        let mut watch = watch(&at("lds.yaml"), None);
        symlink("2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(is_told(&mut watch).await);
    }

    #[tokio::test]
    async fn a_move_into_the_watched_directory_is_told() {
        let (folder, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("lds.yaml");
        fs::write(&path, "1").unwrap();
        let mut watch = watch(&path, Some(watched.path()));
        fs::write(watched.path().join("a"), "").unwrap();
        fs::rename(watched.path().join("a"), watched.path().join("b")).unwrap();
        assert!(is_told(&mut watch).await);
    }
}
