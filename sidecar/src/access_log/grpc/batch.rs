//! Messages of the log stream, put together from entries that are encoded already.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::config::access_log::{GrpcLogKind, GrpcLogStream};
use crate::config::bootstrap::LocalInfo;

/// An encoded `StreamAccessLogsMessage` without its identifier.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// How many are in it.
    pub(crate) entries: u64,
}

/// Numbers of fields in `StreamAccessLogsMessage` and the messages in it.
mod field {
    pub(super) const IDENTIFIER: u32 = 1;
    pub(super) const HTTP_LOGS: u32 = 2;
    pub(super) const TCP_LOGS: u32 = 3;
    pub(super) const LOG_ENTRY: u32 = 1;
    pub(super) const NODE: u32 = 1;
    pub(super) const LOG_NAME: u32 = 2;
}

/// A message of these entries.
pub(crate) fn message(kind: GrpcLogKind, entries: &[Bytes]) -> Message {
    let size: usize = entries.iter().map(|entry| entry.len() + 6).sum();
    let mut logs = Vec::with_capacity(size);
    for entry in entries {
        put(&mut logs, field::LOG_ENTRY, entry);
    }
    let mut bytes = Vec::with_capacity(logs.len() + 8);
    let number = match kind {
        GrpcLogKind::Http => field::HTTP_LOGS,
        GrpcLogKind::Tcp => field::TCP_LOGS,
    };
    put(&mut bytes, number, &logs);
    Message { bytes, entries: entries.len() as u64 }
}

impl Message {
    /// The message with who sends it, as the first of a stream is.
    pub(crate) fn identified(&self, config: &GrpcLogStream, local_info: &LocalInfo) -> Vec<u8> {
        let mut identifier = Vec::new();
        put(&mut identifier, field::NODE, &local_info.node);
        put(&mut identifier, field::LOG_NAME, config.log_name.as_bytes());
        let mut bytes = Vec::with_capacity(identifier.len() + 8 + self.bytes.len());
        put(&mut bytes, field::IDENTIFIER, &identifier);
        bytes.extend_from_slice(&self.bytes);
        bytes
    }
}

fn put(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use outrigger_proto::envoy::data::accesslog::v3::TcpAccessLogEntry;
    use outrigger_proto::envoy::service::accesslog::v3::StreamAccessLogsMessage;
    use outrigger_proto::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_message_is_what_the_service_takes() {
        let entry = |received_bytes| {
            let mut entry = TcpAccessLogEntry::default();
            entry.connection_properties.get_or_insert_default().received_bytes = received_bytes;
            entry
        };
        let encoded: Vec<Bytes> = [1, 300].map(|bytes| entry(bytes).encode_to_vec().into()).into();
        let message = message(GrpcLogKind::Tcp, &encoded);
        let read = StreamAccessLogsMessage::decode(&message.bytes[..]).unwrap();
        let Some(LogEntries::TcpLogs(logs)) = read.log_entries else { panic!("TCP logs") };
        assert_eq!(logs.log_entry, [entry(1), entry(300)]);
        assert!(read.identifier.is_none());
    }
}
