//! Responses as bytes: resources were encoded when they were made, so a response is a small head and references to them.

use crate::discovery::subscription::Request;
use bytes::{BufMut, Bytes};
use outrigger_proto::envoy::config::core::v3::{ControlPlane, Node};
use outrigger_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::encoding::{WireType, encode_key, encode_varint};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Field of the resources, in both `DiscoveryResponse` and `DeltaDiscoveryResponse`.
const RESOURCES: u32 = 2;

/// An encoded `DiscoveryResponse` or `DeltaDiscoveryResponse`.
#[derive(Debug)]
pub(crate) struct RawResponse {
    /// The encoded message without its resources.
    pub(crate) head: Vec<u8>,
    /// Its resources, each encoded.
    pub(crate) resources: Vec<Bytes>,
}

impl RawResponse {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.head);
        for resource in &self.resources {
            encode_key(RESOURCES, WireType::LengthDelimited, out);
            encode_varint(resource.len() as u64, out);
            out.put_slice(resource);
        }
    }
}

/// Who answers, in `ControlPlane.identifier`.
pub(crate) fn control_plane() -> Option<ControlPlane> {
    Some(ControlPlane { identifier: concat!("outrigger/", env!("CARGO_PKG_VERSION")).to_owned() })
}

impl Request for DiscoveryRequest {
    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

impl Request for DeltaDiscoveryRequest {
    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

/// Decodes requests by prost, and writes responses out of shared bytes.
#[derive(Debug)]
pub(crate) struct DiscoveryCodec<R>(PhantomData<R>);

impl<R> Default for DiscoveryCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Request> Codec for DiscoveryCodec<R> {
    type Encode = RawResponse;
    type Decode = R;
    type Encoder = ResponseEncoder;
    type Decoder = RequestDecoder<R>;

    fn encoder(&mut self) -> ResponseEncoder {
        ResponseEncoder
    }

    fn decoder(&mut self) -> RequestDecoder<R> {
        RequestDecoder(PhantomData)
    }
}

/// See [`DiscoveryCodec`].
#[derive(Debug)]
pub(crate) struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Item = RawResponse;
    type Error = Status;

    fn encode(&mut self, response: RawResponse, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        response.encode(out);
        Ok(())
    }
}

/// See [`DiscoveryCodec`].
#[derive(Debug)]
pub(crate) struct RequestDecoder<R>(PhantomData<R>);

impl<R: Request> Decoder for RequestDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(bytes)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("request does not decode: {error}")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use prost::Message;

    /// As a client decodes it.
    pub(crate) fn decoded<M: Message + Default>(response: &RawResponse) -> M {
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        M::decode(bytes.as_slice()).unwrap()
    }
}
