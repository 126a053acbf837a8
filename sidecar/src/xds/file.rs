//! Resources from a file: a discovery server in miniature, so that the rest of discovery need not know the difference.

use std::sync::Arc;

use outrigger_proto::envoy::service::discovery::v3::DiscoveryResponse;
use tokio::sync::mpsc;

use super::client::Event;
use super::subscription::{Request, Response};
use super::watch::Watch;
use super::{Kind, StreamId};
use crate::config::config_source::ConfigFile;
use crate::config::resource_file::{self, ResourceFile};

/// A file that is read now, and again whenever it changes.
pub(crate) struct FileSource {
    /// Its stream.
    pub(crate) id: StreamId,
    /// The type of its resources.
    pub(crate) kind: Kind,
    /// Where.
    pub(crate) file: Arc<ConfigFile>,
    /// A file with fields that do not exist is bad (`--reject-unknown-dynamic-fields`).
    pub(crate) deny_unknown_fields: bool,
    /// Where events go.
    pub(crate) events: mpsc::Sender<(StreamId, Event)>,
}

impl FileSource {
    /// Answers for as long as somebody takes the events.
    pub(crate) async fn run(self) {
        let (sender, mut requests) = mpsc::unbounded_channel();
        if !self.tell(Event::Connected(sender)).await {
            return;
        }
        // Watched before it is read: a change in between is not missed.
        let mut watch = Watch::new(&self.file);
        let mut content = None;
        let mut wanted: Option<Vec<String>> = None;
        let mut nonce = 0_u64;
        let mut refused = String::new();
        match self.load().await {
            Ok(response) => content = Some(response),
            Err(error) if self.refuse(&error).await => refused = error,
            Err(_) => return,
        }
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(Request::StateOfTheWorld(request)) = request else { return };
                    if wanted.as_ref() == Some(&request.resource_names) {
                        continue; // an answer to what it was told
                    }
                    wanted = Some(request.resource_names);
                }
                () = watch.changed() => match self.load().await {
                    Ok(response) if content.as_ref() == Some(&response) => continue,
                    Ok(response) => {
                        refused.clear();
                        content = Some(response);
                    }
                    // Looked at every second, it is as bad as it was.
                    Err(error) if error == refused => continue,
                    Err(error) if self.refuse(&error).await => {
                        refused = error;
                        continue;
                    }
                    Err(_) => return,
                },
            }
            if let (true, Some(response)) = (wanted.is_some(), &content) {
                nonce += 1;
                let response = DiscoveryResponse { nonce: nonce.to_string(), ..response.clone() };
                let response = Response::StateOfTheWorld(response);
                if !self.tell(Event::Response(Box::new(response))).await {
                    return;
                }
            }
        }
    }

    /// Reads the file.
    async fn load(&self) -> Result<DiscoveryResponse, String> {
        let (file, kind, deny) = (Arc::clone(&self.file), self.kind, self.deny_unknown_fields);
        let read = move || resource_file::read(&file.path, kind.type_url(), deny);
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
        let ResourceFile { response, unknown } = read.map_err(|error| error.to_string())?;
        for field in unknown {
            tracing::warn!("{field}");
        }
        let path = self.file.path.display();
        tracing::debug!(%path, version = response.version_info, "read");
        Ok(response)
    }

    /// A bad file changes nothing, and says why.
    async fn refuse(&self, error: &str) -> bool {
        for line in error.lines() {
            tracing::error!(about = %self.kind, "{line}");
        }
        self.tell(Event::Unusable).await
    }

    /// Returns whether anybody takes the events still.
    async fn tell(&self, event: Event) -> bool {
        self.events.send((self.id, event)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use outrigger_proto::envoy::service::discovery::v3::DiscoveryRequest;
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::config::config_source::Origin;
    use crate::xds::streams::Streams;

    fn cluster(version: &str, timeout: &str) -> String {
        format!(
            "{{version_info: '{version}', resources: [{{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: api, connect_timeout: {timeout}}}]}}"
        )
    }

    fn replace(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    async fn next(events: &mut mpsc::Receiver<(StreamId, Event)>) -> Event {
        timeout(Duration::from_secs(10), events.recv()).await.expect("an event").expect("open").1
    }

    fn version(event: Event) -> String {
        match event {
            Event::Response(response) => match *response {
                Response::StateOfTheWorld(response) => response.version_info,
                Response::Delta(_) => panic!("by delta"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_told_when_it_is_asked_for_and_when_it_changes_unless_it_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cds.yaml");
        fs::write(&path, cluster("1", "1s")).unwrap();
        let file = Arc::new(ConfigFile {
            path: path.clone(),
            watched_directory: None,
            poll_interval: None,
        });
        let mut streams = Streams::new(None);
        streams.subscription(Kind::Cluster, &Origin::File(Arc::clone(&file)));
        let id = streams.take_opened().remove(0).id;
        let (events, mut told) = mpsc::channel(4);
        let source =
            FileSource { id, kind: Kind::Cluster, file, deny_unknown_fields: false, events };
        tokio::spawn(source.run());
        let Event::Connected(requests) = next(&mut told).await else { panic!("not connected") };
        let request = |names: &[&str]| {
            let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
            let request = DiscoveryRequest { resource_names, ..DiscoveryRequest::default() };
            requests.send(Request::StateOfTheWorld(request)).unwrap();
        };
        request(&[]);
        assert_eq!(version(next(&mut told).await), "1");
        request(&[]); // an ACK
        replace(&path, &cluster("2", "2s"));
        assert_eq!(version(next(&mut told).await), "2");
        replace(&path, &cluster("3", "-3s"));
        assert!(matches!(next(&mut told).await, Event::Unusable));
        request(&["other"]);
        assert_eq!(version(next(&mut told).await), "2", "what was good last");
        replace(&path, &cluster("4", "4s"));
        assert_eq!(version(next(&mut told).await), "4");
    }
}
