//! What discovery refuses, and what it puts up with.

use super::*;
use outrigger_proto::google::protobuf::{Struct, Value, value};
use tonic::Code;

async fn refused(plane: &Plane, scope: Option<ResourceType>, first: DiscoveryRequest) -> Status {
    let channel = plane.foreign().await;
    match Stream::<_, DiscoveryResponse>::open(channel, path("Stream", scope), vec![first]).await {
        Err(status) => status,
        Ok(mut stream) => stream.receive().await.unwrap_err(),
    }
}

fn clusters() -> DiscoveryRequest {
    DiscoveryRequest {
        node: node("test-id"),
        type_url: ResourceType::Cluster.url().to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_stream_without_a_node_id_is_refused() {
    let plane = Plane::new("").await;
    for id in [None, node("")] {
        let status = refused(&plane, None, DiscoveryRequest { node: id, ..clusters() }).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "node: id is missing")
        );
    }
}

#[tokio::test]
async fn a_type_url_is_needed_on_an_aggregated_stream_only() {
    let plane = Plane::new(&four_services()).await;
    let unnamed = DiscoveryRequest { type_url: String::new(), ..clusters() };
    let status = refused(&plane, None, unnamed.clone()).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("type_url"), "{status}");
    let status = refused(&plane, Some(ResourceType::Listener), clusters()).await;
    assert_eq!(status.code(), Code::InvalidArgument);

    let scope = Some(ResourceType::Cluster);
    let stream = Stream::open(plane.foreign().await, path("Stream", scope), vec![unnamed]).await;
    let response: DiscoveryResponse = stream.unwrap().receive().await.unwrap();
    assert_eq!(response.type_url, ResourceType::Cluster.url());
}

#[tokio::test]
async fn a_type_that_is_not_served_is_ignored_and_the_stream_lives() {
    let plane = Plane::new(&four_services()).await;
    let unknown = DiscoveryRequest { type_url: "type.googleapis.com/x.Y".to_owned(), ..clusters() };
    let first = vec![unknown, DiscoveryRequest { node: None, ..clusters() }];
    let stream = Stream::open(plane.foreign().await, path("Stream", None), first).await;
    let response: DiscoveryResponse = stream.unwrap().receive().await.unwrap();
    assert_eq!(response.type_url, ResourceType::Cluster.url());
}

fn with_metadata(bytes: usize) -> DiscoveryRequest {
    let text = Value { kind: Some(value::Kind::StringValue("x".repeat(bytes))) };
    let metadata = Struct { fields: HashMap::from([("m".to_owned(), text)]) };
    let node = node("test-id").map(|node| Node { metadata: Some(metadata), ..node });
    DiscoveryRequest { node, ..clusters() }
}

#[tokio::test]
async fn a_megabyte_of_metadata_is_taken_and_a_request_over_ten_is_not() {
    let plane = Plane::new(&four_services()).await;
    let first = vec![with_metadata(1 << 20)];
    let stream = Stream::open(plane.foreign().await, path("Stream", None), first).await;
    let response: DiscoveryResponse = stream.unwrap().receive().await.unwrap();
    assert_eq!(response.resources.len(), 4);
    let status = refused(&plane, None, with_metadata(11 << 20)).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}
