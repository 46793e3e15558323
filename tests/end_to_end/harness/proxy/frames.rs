//! Frames of the Kafka protocol, as far as the proxy looks at them.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use super::{Ending, ProducerEpoch};

/// Error codes of the Kafka protocol.
pub(super) mod error {
    pub(in super::super) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub(in super::super) const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub(in super::super) const PRODUCER_FENCED: i16 = 90;
    pub(in super::super) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
}

/// A request, as far as the proxy looks at it.
pub(super) struct Request {
    pub(super) api: Api,
    pub(super) correlation_id: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Produce {
        is_flexible: bool,
    },
    Metadata,
    FindCoordinator,
    InitProducerId,
    EndTxn(Ending, ProducerEpoch),
    /// `IncrementalAlterConfigs`, of one topic.
    Configure {
        is_flexible: bool,
    },
    Other,
}

impl Request {
    /// Source: Kafka protocol guide, "Request header v1" and "`EndTxn` Request".
    pub(super) fn parse(frame: &[u8]) -> Self {
        let mut fields = Fields(frame);
        let (key, version) = (i16::from_be_bytes(fields.take()), i16::from_be_bytes(fields.take()));
        let correlation_id = i32::from_be_bytes(fields.take());
        let api = match key {
            0 => Api::Produce { is_flexible: version >= 9 },
            3 => Api::Metadata,
            10 => Api::FindCoordinator,
            22 => Api::InitProducerId,
            26 => {
                assert!(version <= 2, "EndTxn version {version} has another form");
                // The client's and the transactional id.
                fields.skip_text();
                fields.skip_text();
                let producer =
                    ProducerEpoch { id: i64::from_be_bytes(fields.take()), epoch: i16::from_be_bytes(fields.take()) };
                let [commit] = fields.take();
                Api::EndTxn(if commit == 0 { Ending::Abort } else { Ending::Commit }, producer)
            }
            44 => Api::Configure { is_flexible: version >= 1 },
            _ => Api::Other,
        };
        Self { api, correlation_id }
    }
}

/// Source: Kafka protocol guide, "`EndTxn` Response": the correlation id and the throttle time come before the error code.
pub(super) fn end_txn_error(frame: &[u8]) -> i16 {
    let mut fields = Fields(frame);
    let _correlation_id: [u8; 4] = fields.take();
    let _throttle_time: [u8; 4] = fields.take();
    i16::from_be_bytes(fields.take())
}

/// Where the error code of the only partition is: librdkafka sends records of one partition in a request.
///
/// Source: Kafka protocol guide, "Produce Response". In the flexible versions (KIP-482) the header ends with tagged fields, of which there
/// are none, and lengths are varints, which a topic's name and counts of one fit into a byte or two of.
pub(super) fn produce_error_position(frame: &[u8], is_flexible: bool) -> usize {
    let mut fields = Fields(frame);
    let _correlation_id: [u8; 4] = fields.take();
    if is_flexible {
        let [tagged_fields, topics] = fields.take();
        let name_len = fields.take_varint() - 1;
        fields.0 = &fields.0[name_len..];
        let [partitions] = fields.take();
        assert_eq!((tagged_fields, topics, partitions), (0, 2, 2), "one more than the number of elements");
    } else {
        assert_eq!(i32::from_be_bytes(fields.take()), 1, "one topic");
        fields.skip_text();
        assert_eq!(i32::from_be_bytes(fields.take()), 1, "one partition");
    }
    let _partition: [u8; 4] = fields.take();
    frame.len() - fields.0.len()
}

pub(super) struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const LEN: usize>(&mut self) -> [u8; LEN] {
        let (taken, rest) = self.0.split_first_chunk().expect("a frame is whole");
        self.0 = rest;
        *taken
    }

    fn take_varint(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let [byte] = self.take();
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    /// A text may be absent, which its length says by being -1.
    fn skip_text(&mut self) {
        let len = i16::from_be_bytes(self.take());
        self.0 = &self.0[usize::try_from(len).unwrap_or(0)..];
    }
}

/// One frame without its length.
pub(super) fn read_frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = usize::try_from(i32::from_be_bytes(len)).map_err(io::Error::other)?;
    let mut frame = vec![0; len];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

pub(super) fn write_frame(to: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let len = i32::try_from(frame.len()).map_err(io::Error::other)?;
    // In one piece, so that no half of a frame waits for the other.
    to.write_all(&[&len.to_be_bytes(), frame].concat())
}

/// Puts one text in the place of another that is as long.
pub(super) fn replace_all(frame: &mut [u8], from: &[u8], to: &[u8]) {
    for at in 0..(frame.len() + 1).saturating_sub(from.len()) {
        if frame[at..].starts_with(from) {
            frame[at..at + to.len()].copy_from_slice(to);
        }
    }
}
