//! From bytes to messages.

use bytes::Bytes;

use crate::{
    Begin, BeginPrepare, Commit, CommitPrepared, DecodeError, Delete, Insert, LogicalMessage, Message, MessageKind,
    Origin, Prepare, ProtocolVersion, Relation, RollbackPrepared, StreamAbort, StreamCommit, StreamPrepare,
    StreamStart, StreamStop, Truncate, Type, Update, error::Problem, message::Place, reader::Reader,
};

/// Decodes the messages of one replication session, in the order in which they came.
///
/// The order matters only under protocol version 2 and later: between Stream Start and Stream Stop most messages carry
/// one field more, so the decoder has to know where it is. It refuses a message that the version does not have, a block
/// inside a block, and the end of a block that never started. A session that starts anew needs a new decoder.
#[derive(Debug, Clone)]
pub struct Decoder {
    version: ProtocolVersion,
    parallel: bool,
    /// Whether a streamed block is open: the last of Stream Start and Stream Stop was a start.
    streamed: bool,
}

impl Decoder {
    /// A decoder for a session that asked for this `proto_version`, with the option `streaming` off or `on`.
    pub const fn new(version: ProtocolVersion) -> Self {
        Self { version, parallel: false, streamed: false }
    }

    /// A decoder for a session that asked for `streaming 'parallel'`, which implies `proto_version '4'`: there, and
    /// only there, a Stream Abort says where and when.
    pub const fn for_parallel_streaming() -> Self {
        Self { version: ProtocolVersion::V4, parallel: true, streamed: false }
    }

    /// Decodes one message: the payload of one [`WalData`](crate::WalData), or the column `data` of
    /// `pg_logical_slot_peek_binary_changes`.
    ///
    /// Tuples and contents share the payload's buffer. After an error the decoder is as it was before, but the stream
    /// should be given up: what could not be decoded cannot be left out either.
    #[inline]
    pub fn decode(&mut self, payload: Bytes) -> Result<Message, DecodeError> {
        let kind = self.admit(&payload)?;
        let mut reader = Reader::new(kind.name(), payload);
        reader.u8("message type")?;
        let streamed = self.streamed;
        let message = match kind {
            MessageKind::Insert => Message::Insert(Insert::read(reader, streamed)?),
            MessageKind::Update => Message::Update(Update::read(reader, streamed)?),
            MessageKind::Delete => Message::Delete(Delete::read(reader, streamed)?),
            MessageKind::Begin => Message::Begin(Begin::read(reader)?),
            MessageKind::Commit => Message::Commit(Commit::read(reader)?),
            MessageKind::Origin => Message::Origin(Origin::read(reader)?),
            MessageKind::Relation => Message::Relation(Relation::read(reader, streamed)?),
            MessageKind::Type => Message::Type(Type::read(reader, streamed)?),
            MessageKind::Truncate => Message::Truncate(Truncate::read(reader, streamed)?),
            MessageKind::Logical => Message::Logical(LogicalMessage::read(reader, streamed)?),
            MessageKind::StreamStart => {
                let start = StreamStart::read(reader)?;
                self.streamed = true;
                Message::StreamStart(start)
            }
            MessageKind::StreamStop => {
                let stop = StreamStop::read(reader)?;
                self.streamed = false;
                Message::StreamStop(stop)
            }
            MessageKind::StreamCommit => Message::StreamCommit(StreamCommit::read(reader)?),
            MessageKind::StreamAbort => Message::StreamAbort(StreamAbort::read(reader, self.parallel)?),
            MessageKind::BeginPrepare => Message::BeginPrepare(BeginPrepare::read(reader)?),
            MessageKind::Prepare => Message::Prepare(Prepare::read(reader)?),
            MessageKind::CommitPrepared => Message::CommitPrepared(CommitPrepared::read(reader)?),
            MessageKind::RollbackPrepared => Message::RollbackPrepared(RollbackPrepared::read(reader)?),
            MessageKind::StreamPrepare => Message::StreamPrepare(StreamPrepare::read(reader)?),
        };
        Ok(message)
    }

    /// The version of the protocol that it decodes.
    pub const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Which message it is, if one of that kind can come here at all.
    #[inline]
    fn admit(&self, payload: &[u8]) -> Result<MessageKind, DecodeError> {
        const FIELD: &str = "message type";
        let Some(&tag) = payload.first() else {
            return Err(DecodeError::new("message", FIELD, 0, Problem::Truncated { needed: 1, left: 0 }));
        };
        let Some(kind) = MessageKind::from_tag(tag) else {
            return Err(DecodeError::new("message", FIELD, 0, Problem::UnknownMessage(tag)));
        };
        if kind.since() > self.version {
            let problem = Problem::TooOld { needed: kind.since(), negotiated: self.version };
            return Err(DecodeError::new(kind.name(), FIELD, 0, problem));
        }
        match kind.place() {
            Place::Outside if self.streamed => {
                Err(DecodeError::new(kind.name(), FIELD, 0, Problem::InsideStreamedBlock))
            }
            Place::Inside if !self.streamed => {
                Err(DecodeError::new(kind.name(), FIELD, 0, Problem::OutsideStreamedBlock))
            }
            _ => Ok(kind),
        }
    }
}
