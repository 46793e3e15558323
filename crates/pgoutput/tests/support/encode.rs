//! An encoder of messages, written from the documentation and sharing nothing with the decoder: the oracle of the
//! property tests and of the fuzz targets.
//!
//! The protocol leaves no choice in how a message is written, so that what was decoded must encode to the very bytes it
//! came from.

use pgoutput::{Frame, Message, OldTuple, ReplicaIdentity, Tuple, Value, Xid};

/// The row as COPY would write it in text format, with the end of its line.
pub fn encode_copy(row: &Tuple) -> Vec<u8> {
    let mut line = Vec::new();
    for (position, value) in row.iter().enumerate() {
        if position > 0 {
            line.push(b'\t');
        }
        match value {
            Value::Null => line.extend(b"\\N"),
            Value::Text(text) => line.extend(text.iter().flat_map(|&byte| {
                let letter = match byte {
                    8 => b'b',
                    9 => b't',
                    10 => b'n',
                    11 => b'v',
                    12 => b'f',
                    13 => b'r',
                    b'\\' => b'\\',
                    _ => return vec![byte],
                };
                vec![b'\\', letter]
            })),
            Value::UnchangedToast | Value::Binary(_) => panic!("COPY in text format has no such value"),
        }
    }
    line.push(b'\n');
    line
}

/// The message as the server would write it.
pub fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Begin(m) => wire(b'B').u64(m.commit_lsn).i64(m.commit_time).u32(m.xid),
        Message::Commit(m) => wire(b'C').byte(0).u64(m.commit_lsn).u64(m.end_lsn).i64(m.commit_time),
        Message::Origin(m) => wire(b'O').u64(m.commit_lsn).text(&m.name),
        Message::Relation(m) => {
            let identity = match m.replica_identity {
                ReplicaIdentity::Default => b'd',
                ReplicaIdentity::Nothing => b'n',
                ReplicaIdentity::Full => b'f',
                ReplicaIdentity::Index => b'i',
            };
            let head = wire(b'R').streamed(m.xid).u32(m.id).text(&m.schema).text(&m.name).byte(identity);
            m.columns.iter().fold(head.count(m.columns.len()), |wire, column| {
                let modifier = column.type_modifier.cast_unsigned();
                wire.byte(u8::from(column.is_key)).text(&column.name).u32(column.type_oid).u32(modifier)
            })
        }
        Message::Type(m) => wire(b'Y').streamed(m.xid).u32(m.id).text(&m.schema).text(&m.name),
        Message::Insert(m) => wire(b'I').streamed(m.xid).u32(m.relation).tuple(b'N', &m.new),
        Message::Update(m) => wire(b'U').streamed(m.xid).u32(m.relation).old(&m.old).tuple(b'N', &m.new),
        Message::Delete(m) => wire(b'D').streamed(m.xid).u32(m.relation).old(&m.old),
        Message::Truncate(m) => {
            let flags = u8::from(m.cascade) | (u8::from(m.restart_identity) << 1);
            let head = wire(b'T').streamed(m.xid).u32(u32::try_from(m.relations.len()).unwrap()).byte(flags);
            m.relations.iter().fold(head, |wire, &relation| wire.u32(relation))
        }
        Message::Logical(m) => {
            let head = wire(b'M').streamed(m.xid).byte(u8::from(m.transactional)).u64(m.lsn).text(&m.prefix);
            head.u32(u32::try_from(m.content.len()).unwrap()).bytes(&m.content)
        }
        Message::StreamStart(m) => wire(b'S').u32(m.xid).byte(u8::from(m.first_block)),
        Message::StreamStop(_) => wire(b'E'),
        Message::StreamCommit(m) => wire(b'c').u32(m.xid).byte(0).u64(m.commit_lsn).u64(m.end_lsn).i64(m.commit_time),
        Message::StreamAbort(m) => {
            let head = wire(b'A').u32(m.xid).u32(m.subxid);
            match m.position {
                Some(at) => head.u64(at.abort_lsn).i64(at.abort_time),
                None => head,
            }
        }
        Message::BeginPrepare(m) => {
            wire(b'b').u64(m.prepare_lsn).u64(m.end_lsn).i64(m.prepare_time).u32(m.xid).text(&m.global_id)
        }
        Message::Prepare(m) => {
            wire(b'P').byte(0).u64(m.prepare_lsn).u64(m.end_lsn).i64(m.prepare_time).u32(m.xid).text(&m.global_id)
        }
        Message::CommitPrepared(m) => {
            wire(b'K').byte(0).u64(m.commit_lsn).u64(m.end_lsn).i64(m.commit_time).u32(m.xid).text(&m.global_id)
        }
        Message::RollbackPrepared(m) => {
            let head = wire(b'r').byte(0).u64(m.prepare_end_lsn).u64(m.rollback_end_lsn);
            head.i64(m.prepare_time).i64(m.rollback_time).u32(m.xid).text(&m.global_id)
        }
        Message::StreamPrepare(m) => {
            wire(b'p').byte(0).u64(m.prepare_lsn).u64(m.end_lsn).i64(m.prepare_time).u32(m.xid).text(&m.global_id)
        }
    }
    .0
}

/// The frame as the server would write it.
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    match frame {
        Frame::WalData(m) => wire(b'w').u64(m.wal_start).u64(m.wal_end).i64(m.sent_at).bytes(&m.payload),
        Frame::Keepalive(m) => wire(b'k').u64(m.wal_end).i64(m.sent_at).byte(u8::from(m.reply_requested)),
    }
    .0
}

struct Wire(Vec<u8>);

fn wire(tag: u8) -> Wire {
    Wire(vec![tag])
}

impl Wire {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn count(self, count: usize) -> Self {
        self.bytes(&i16::try_from(count).unwrap().to_be_bytes())
    }

    fn u32(self, number: impl Into<u32>) -> Self {
        self.bytes(&number.into().to_be_bytes())
    }

    fn u64(self, number: impl Into<u64>) -> Self {
        self.bytes(&number.into().to_be_bytes())
    }

    fn i64(self, number: impl Into<i64>) -> Self {
        self.bytes(&number.into().to_be_bytes())
    }

    fn text(self, text: &str) -> Self {
        assert!(!text.contains('\0'), "a zero byte would end the text");
        self.bytes(text.as_bytes()).byte(0)
    }

    fn streamed(self, xid: Option<Xid>) -> Self {
        match xid {
            Some(xid) => self.u32(xid),
            None => self,
        }
    }

    fn old(self, old: &OldTuple) -> Self {
        match old {
            OldTuple::Absent => self,
            OldTuple::Key(key) => self.tuple(b'K', key),
            OldTuple::Full(row) => self.tuple(b'O', row),
        }
    }

    fn tuple(self, tag: u8, tuple: &Tuple) -> Self {
        let value =
            |wire: Self, kind, value: &[u8]| wire.byte(kind).u32(u32::try_from(value.len()).unwrap()).bytes(value);
        tuple.iter().fold(self.byte(tag).count(tuple.len()), |wire, column| match column {
            Value::Null => wire.byte(b'n'),
            Value::UnchangedToast => wire.byte(b'u'),
            Value::Text(text) => value(wire, b't', text),
            Value::Binary(bytes) => value(wire, b'b', bytes),
        })
    }
}
