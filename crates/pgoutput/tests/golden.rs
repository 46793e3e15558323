//! What real servers sent, from PostgreSQL 14 to 18: decoded in full and compared with a readable snapshot; then cut at
//! every byte, and lengthened by one.
//!
//! `tests/golden/record.sh` makes the recordings. `BLESS=1` writes the snapshots anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fs};

use bytes::Bytes;
use pgoutput::{DecodeError, Decoder, Frame, Message};
use support::{Line, Recording, describe};

#[test]
fn every_recording_reads_as_its_snapshot() {
    for recording in Recording::all() {
        let mut decoder = recording.decoder();
        let mut found = Vec::new();
        for line in recording.lines() {
            found.push(match line {
                Line::Message(lsn, payload) => format!("{lsn} {}", describe(&decoder.decode(payload).unwrap())),
                Line::Frame(bytes) => match Frame::parse(bytes).unwrap() {
                    Frame::WalData(data) => {
                        let (start, end, time) = (data.wal_start, data.wal_end, i64::from(data.sent_at));
                        format!("{start} {end} {time} {}", describe(&decoder.decode(data.payload).unwrap()))
                    }
                    Frame::Keepalive(alive) => {
                        let (end, time) = (alive.wal_end, i64::from(alive.sent_at));
                        format!("{end} {time} Keepalive reply_requested={}", alive.reply_requested)
                    }
                },
            });
        }
        let snapshot = recording.path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&snapshot, found.join("\n") + "\n").unwrap();
        }
        let expected = fs::read_to_string(&snapshot).unwrap_or_default();
        let expected: Vec<&str> = expected.lines().collect();
        for (number, (found, &expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{}, line {}", recording.title(), number + 1);
        }
        assert_eq!(found.len(), expected.len(), "{}", recording.title());
    }
}

/// Otherwise a recording that lost its messages would pass for a good one.
#[test]
fn the_recordings_hold_every_message_of_every_version() {
    let kinds = |server: &str, version: &str| -> BTreeSet<&str> {
        Recording::all()
            .iter()
            .filter(|recording| recording.server == server && recording.name.starts_with(version))
            .flat_map(Recording::messages)
            .map(|(_, message)| message.kind().name())
            .collect()
    };
    let v1 = ["Begin", "Commit", "Delete", "Insert", "Message", "Origin", "Relation", "Truncate", "Type", "Update"];
    let v2 = ["Stream Abort", "Stream Commit", "Stream Start", "Stream Stop"];
    let v3 = ["Begin Prepare", "Commit Prepared", "Prepare", "Rollback Prepared", "Stream Prepare"];
    for server in ["14", "15", "16", "17", "18"] {
        assert_eq!(kinds(server, "v1"), v1.into(), "PostgreSQL {server}");
        assert_eq!(kinds(server, "v2"), [&v1[..], &v2].concat().into_iter().collect(), "PostgreSQL {server}");
    }
    let all: BTreeSet<&str> = [&v1[..], &v2, &v3].concat().into_iter().collect();
    for (server, version) in
        [("15", "v3"), ("16", "v3"), ("16", "v4"), ("17", "v3"), ("17", "v4"), ("18", "v3"), ("18", "v4")]
    {
        assert_eq!(kinds(server, version), all, "PostgreSQL {server}, {version}");
    }
}

#[test]
fn a_message_that_is_cut_anywhere_or_lengthened_is_refused() {
    let mut cuts = 0;
    for recording in Recording::all() {
        let mut decoder = recording.decoder();
        for line in recording.lines() {
            let bytes = match &line {
                Line::Message(_, bytes) | Line::Frame(bytes) => bytes.clone(),
            };
            for length in 0..bytes.len() {
                let error =
                    decode(&mut decoder.clone(), &line, bytes.slice(..length)).expect_err("a cut message was taken");
                assert!(error.is_truncated(), "{}, cut to {length} bytes: {error}", recording.title());
                assert!(error.offset() <= length, "{}, cut to {length} bytes: {error}", recording.title());
                cuts += 1;
            }
            let longer: Bytes = [&bytes[..], &[0]].concat().into();
            let error =
                decode(&mut decoder.clone(), &line, longer).expect_err("a message with a byte too many was taken");
            assert_eq!(error.field(), "end of message", "{}: {error}", recording.title());
            decode(&mut decoder, &line, bytes).unwrap();
        }
    }
    assert!(cuts > 100_000, "only {cuts} cuts were tried");
}

/// Decodes bytes that stand where `line` stood: a frame, or a message alone.
fn decode(decoder: &mut Decoder, line: &Line, bytes: Bytes) -> Result<Option<Message>, DecodeError> {
    let payload = match line {
        Line::Message(..) => bytes,
        Line::Frame(_) => match Frame::parse(bytes)? {
            Frame::WalData(data) => data.payload,
            Frame::Keepalive(_) => return Ok(None),
        },
    };
    decoder.decode(payload).map(Some)
}
