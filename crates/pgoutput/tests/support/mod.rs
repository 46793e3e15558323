//! The recordings in `tests/golden`, and how a message reads in their snapshots.

#![allow(dead_code, unreachable_pub, reason = "every test that includes this module uses a part of it")]

pub mod encode;

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use pgoutput::{Decoder, Frame, Lsn, Message, OldTuple, ProtocolVersion, ReplicaIdentity, Tuple, Value, Xid};

/// One recording: what one slot of one server sent during the scenario.
pub struct Recording {
    pub path: PathBuf,
    pub server: String,
    pub name: String,
}

/// One recorded line.
pub enum Line {
    /// A whole frame.
    Frame(Bytes),
    /// A message alone, and its position.
    Message(Lsn, Bytes),
}

impl Recording {
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut found = Vec::new();
        for server in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            for path in fs::read_dir(&server).unwrap().map(|entry| entry.unwrap().path()) {
                if path.extension().is_some_and(|extension| extension == "hex") {
                    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
                    found.push(Self { server: stem(&server), name: stem(&path), path });
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    pub fn title(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// A decoder for what the recorder asked for, which the recording's name says.
    pub fn decoder(&self) -> Decoder {
        match self.name.split('-').next() {
            Some("v1") => Decoder::new(ProtocolVersion::V1),
            Some("v2") => Decoder::new(ProtocolVersion::V2),
            Some("v3") => Decoder::new(ProtocolVersion::V3),
            Some("v4") => Decoder::for_parallel_streaming(),
            _ => panic!("{} names no protocol version", self.title()),
        }
    }

    pub fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(&self.path).unwrap();
        let line = |line: &str| match line.split_once(' ') {
            Some((lsn, payload)) => Line::Message(lsn.parse().unwrap(), from_hex(payload)),
            None => Line::Frame(from_hex(line)),
        };
        text.lines().map(line).collect()
    }

    /// The positions and messages, without keepalives.
    pub fn messages(&self) -> Vec<(Lsn, Message)> {
        let mut decoder = self.decoder();
        let mut messages = Vec::new();
        for line in self.lines() {
            let (lsn, payload) = match line {
                Line::Message(lsn, payload) => (lsn, payload),
                Line::Frame(bytes) => match Frame::parse(bytes).unwrap() {
                    Frame::WalData(data) => (data.wal_start, data.payload),
                    Frame::Keepalive(_) => continue,
                },
            };
            messages.push((lsn, decoder.decode(payload).unwrap()));
        }
        messages
    }
}

pub fn from_hex(text: &str) -> Bytes {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(pair).collect()
}

/// A message in one line.
pub fn describe(message: &Message) -> String {
    let kind = message.kind();
    match message {
        Message::Begin(m) => format!("{kind} xid={} commit={} time={}", m.xid, m.commit_lsn, i64::from(m.commit_time)),
        Message::Commit(m) => {
            format!("{kind} commit={} end={} time={}", m.commit_lsn, m.end_lsn, i64::from(m.commit_time))
        }
        Message::Origin(m) => format!("{kind} {:?} commit={}", m.name, m.commit_lsn),
        Message::Relation(m) => {
            let mut text = format!("{kind}{} {} {:?}.{:?}", streamed(m.xid), m.id, m.schema, m.name);
            let identity = match m.replica_identity {
                ReplicaIdentity::Default => "default",
                ReplicaIdentity::Nothing => "nothing",
                ReplicaIdentity::Full => "full",
                ReplicaIdentity::Index => "index",
            };
            write!(text, " identity={identity} [").unwrap();
            for (index, column) in m.columns.iter().enumerate() {
                let (space, key) = (if index == 0 { "" } else { ", " }, if column.is_key { "*" } else { "" });
                write!(text, "{space}{:?}{key}:{}/{}", column.name, column.type_oid, column.type_modifier).unwrap();
            }
            text + "]"
        }
        Message::Type(m) => format!("{kind}{} {} {:?}.{:?}", streamed(m.xid), m.id, m.schema, m.name),
        Message::Insert(m) => format!("{kind}{} {} new={}", streamed(m.xid), m.relation, row(&m.new)),
        Message::Update(m) => {
            format!("{kind}{} {}{} new={}", streamed(m.xid), m.relation, old(&m.old), row(&m.new))
        }
        Message::Delete(m) => format!("{kind}{} {}{}", streamed(m.xid), m.relation, old(&m.old)),
        Message::Truncate(m) => {
            let relations: Vec<u32> = m.relations.iter().map(|&id| id.into()).collect();
            let (cascade, restart) = (m.cascade, m.restart_identity);
            format!("{kind}{} {relations:?} cascade={cascade} restart_identity={restart}", streamed(m.xid))
        }
        Message::Logical(m) => {
            let (xid, content) = (streamed(m.xid), m.content.escape_ascii());
            format!("{kind}{xid} {:?} transactional={} lsn={} \"{content}\"", m.prefix, m.transactional, m.lsn)
        }
        Message::StreamStart(m) => format!("{kind} xid={} first={}", m.xid, m.first_block),
        Message::StreamStop(_) => kind.to_string(),
        Message::StreamCommit(m) => {
            let time = i64::from(m.commit_time);
            format!("{kind} xid={} commit={} end={} time={time}", m.xid, m.commit_lsn, m.end_lsn)
        }
        Message::StreamAbort(m) => match m.position {
            None => format!("{kind} xid={} subxid={}", m.xid, m.subxid),
            Some(at) => {
                let time = i64::from(at.abort_time);
                format!("{kind} xid={} subxid={} abort={} time={time}", m.xid, m.subxid, at.abort_lsn)
            }
        },
        Message::BeginPrepare(m) => {
            let time = i64::from(m.prepare_time);
            format!("{kind} xid={} {:?} prepare={} end={} time={time}", m.xid, m.global_id, m.prepare_lsn, m.end_lsn)
        }
        Message::Prepare(m) => {
            let time = i64::from(m.prepare_time);
            format!("{kind} xid={} {:?} prepare={} end={} time={time}", m.xid, m.global_id, m.prepare_lsn, m.end_lsn)
        }
        Message::CommitPrepared(m) => {
            let time = i64::from(m.commit_time);
            format!("{kind} xid={} {:?} commit={} end={} time={time}", m.xid, m.global_id, m.commit_lsn, m.end_lsn)
        }
        Message::RollbackPrepared(m) => {
            let (prepared, time) = (i64::from(m.prepare_time), i64::from(m.rollback_time));
            let (from, to) = (m.prepare_end_lsn, m.rollback_end_lsn);
            format!(
                "{kind} xid={} {:?} prepare_end={from} end={to} prepared={prepared} time={time}",
                m.xid, m.global_id
            )
        }
        Message::StreamPrepare(m) => {
            let time = i64::from(m.prepare_time);
            format!("{kind} xid={} {:?} prepare={} end={} time={time}", m.xid, m.global_id, m.prepare_lsn, m.end_lsn)
        }
    }
}

fn streamed(xid: Option<Xid>) -> String {
    xid.map(|xid| format!(" xid={xid}")).unwrap_or_default()
}

fn old(tuple: &OldTuple) -> String {
    match tuple {
        OldTuple::Absent => String::new(),
        OldTuple::Key(key) => format!(" key={}", row(key)),
        OldTuple::Full(full) => format!(" old={}", row(full)),
    }
}

fn row(tuple: &Tuple) -> String {
    let value = |value| match value {
        Value::Null => "null".to_owned(),
        Value::UnchangedToast => "unchanged".to_owned(),
        Value::Text(text) if text.len() > 64 => format!("text of {} bytes", text.len()),
        Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Value::Binary(bytes) => bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    };
    format!("({})", tuple.iter().map(value).collect::<Vec<_>>().join(", "))
}
