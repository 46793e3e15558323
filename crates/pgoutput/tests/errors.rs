//! What the errors say: the message, the field, the byte, and why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use pgoutput::{DecodeError, Decoder, Frame, ProtocolVersion, StatusUpdate};

/// A Stream Start, after which the decoder is inside a block.
const STREAM_START: &[u8] = b"S\0\0\0\x07\x01";

#[track_caller]
fn check(mut decoder: Decoder, bytes: &'static [u8], expected: &str) -> DecodeError {
    let error = decoder.decode(Bytes::from_static(bytes)).expect_err("the bytes were taken");
    assert_eq!(error.to_string(), expected);
    error
}

fn decoder() -> Decoder {
    Decoder::for_parallel_streaming()
}

fn decoder_in_block() -> Decoder {
    let mut decoder = decoder();
    decoder.decode(Bytes::from_static(STREAM_START)).unwrap();
    decoder
}

#[test]
fn a_message_that_ends_too_early() {
    check(decoder(), b"", "message: message type at byte 0: 1 bytes needed, 0 left");
    check(decoder(), b"B\0\0\0", "Begin: final LSN at byte 1: 8 bytes needed, 3 left");
    check(decoder(), b"Y\0\0\0\x01public\0moo", "Type: type name at byte 12: no zero byte ends the text");
    check(decoder(), b"I\0\0\x40\0", "Insert: tuple tag at byte 5: 1 bytes needed, 0 left");
    check(decoder_in_block(), b"I\0\0", "Insert: transaction id at byte 1: 4 bytes needed, 2 left");
    check(decoder(), b"A\0\0\0\x01\0\0\0\x01", "Stream Abort: abort LSN at byte 9: 8 bytes needed, 0 left");
}

#[test]
fn a_tuple_names_the_column() {
    let error = check(
        decoder(),
        b"U\0\0\x40\0K\0\x02nt\0\0",
        "Update: old tuple value length of column 1 at byte 10: 4 bytes needed, 2 left",
    );
    assert_eq!(
        (error.message(), error.field(), error.column(), error.offset()),
        ("Update", "old tuple value length", Some(1), 10)
    );
    check(
        decoder(),
        b"U\0\0\x40\0K\0\x01nN\0\x01t\x80\0\0\0",
        "Update: new tuple value length of column 0 at byte 13: -2147483648 is negative",
    );
    check(
        decoder(),
        b"I\0\0\x40\0N\0\x01t\x7f\xff\xff\xffabc",
        "Insert: new tuple value of column 0 at byte 13: 2147483647 bytes needed, 3 left",
    );
    check(
        decoder(),
        b"I\0\0\x40\0N\0\x02nx",
        "Insert: new tuple value kind of column 1 at byte 9: expected 'n', 'u', 't' or 'b', found 'x' (0x78)",
    );
    check(
        decoder(),
        b"D\0\0\x40\0K\0\x02t\0\0\0\x01a",
        "Delete: old tuple value kind of column 1 at byte 14: 1 bytes needed, 0 left",
    );
}

/// Nothing is allocated for a count before it is known that so much can follow.
#[test]
fn a_count_that_the_message_cannot_hold() {
    check(decoder(), b"I\0\0\x40\0N\xff\xff", "Insert: new tuple column count at byte 6: -1 is negative");
    check(
        decoder(),
        b"I\0\0\x40\0N\x7f\xffnn",
        "Insert: new tuple column count at byte 6: 32767 elements announced, but only 2 bytes left",
    );
    check(
        decoder(),
        b"T\x7f\xff\xff\xff\0\0\0\0\x01",
        "Truncate: relation count at byte 1: 2147483647 elements announced, but only 5 bytes left",
    );
    check(decoder(), b"T\xff\xff\xff\xff\0", "Truncate: relation count at byte 1: -1 is negative");
    check(
        decoder(),
        b"R\0\0\x40\0s\0t\0d\0\x02\0a\0\0\0\0\x17\xff\xff\xff\xff",
        "Relation: column count at byte 10: 2 elements announced, but only 11 bytes left",
    );
    check(decoder(), b"M\0\0\0\0\0\0\0\0\0p\0\xff\xff\xff\xfe", "Message: content length at byte 12: -2 is negative");
}

#[test]
fn bytes_that_the_protocol_does_not_define() {
    let error = check(
        decoder(),
        b"Z\0",
        "message: message type at byte 0: no message of protocol versions 1 to 4 starts with 'Z' (0x5a)",
    );
    assert!(error.is_unknown_message());
    check(decoder(), b"\0", "message: message type at byte 0: no message of protocol versions 1 to 4 starts with 0x00");
    check(decoder(), b"I\0\0\x40\0K\0\0", "Insert: tuple tag at byte 5: expected 'N', found 'K' (0x4b)");
    check(decoder(), b"D\0\0\x40\0N\0\0", "Delete: tuple tag at byte 5: expected 'K' or 'O', found 'N' (0x4e)");
    check(decoder(), b"U\0\0\x40\0\xffx", "Update: tuple tag at byte 5: expected 'K', 'O' or 'N', found 0xff");
    check(
        decoder(),
        b"R\0\0\x40\0s\0t\0x\0\0",
        "Relation: replica identity at byte 9: expected 'd', 'n', 'f' or 'i', found 'x' (0x78)",
    );
    check(
        decoder(),
        b"R\0\0\x40\0s\0t\0d\0\x01\x02a\0\0\0\0\x17\xff\xff\xff\xff",
        "Relation: flags of column 0 at byte 12: 0x02 holds flags that the protocol does not define",
    );
    check(decoder(), b"C\x01", "Commit: flags at byte 1: 0x01 holds flags that the protocol does not define");
    check(decoder(), b"T\0\0\0\0\x04", "Truncate: flags at byte 5: 0x04 holds flags that the protocol does not define");
    check(
        decoder(),
        b"S\0\0\0\x01\x02",
        "Stream Start: first segment at byte 5: 0x02 holds flags that the protocol does not define",
    );
}

#[test]
fn a_name_that_is_not_utf_8() {
    check(decoder(), b"Y\0\0\0\x01\xff\xfe\0m\0", "Type: schema at byte 5: the text is not UTF-8");
    check(
        decoder(),
        b"R\0\0\x40\0s\0t\0d\0\x01\x01\xc3\0\0\0\0\x17\xff\xff\xff\xff",
        "Relation: name of column 0 at byte 13: the text is not UTF-8",
    );
}

#[test]
fn a_transaction_without_a_position() {
    let begin = b"B\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    check(decoder(), begin, "Begin: final LSN at byte 1: 0/0 is not a position");
}

#[test]
fn bytes_that_no_field_takes() {
    check(decoder(), b"I\0\0\x40\0N\0\x01nn", "Insert: end of message at byte 9: 1 bytes follow the last field");
    // Without `streaming 'parallel'` a Stream Abort holds no position.
    check(
        Decoder::new(ProtocolVersion::V4),
        b"A\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01",
        "Stream Abort: end of message at byte 9: 16 bytes follow the last field",
    );
}

#[test]
fn a_message_that_the_version_does_not_have() {
    let error = check(
        Decoder::new(ProtocolVersion::V1),
        STREAM_START,
        "Stream Start: message type at byte 0: came under protocol version 1, which has no \
         such message; it needs version 2",
    );
    assert!(error.is_unknown_message());
    check(
        Decoder::new(ProtocolVersion::V2),
        b"b",
        "Begin Prepare: message type at byte 0: came under protocol version 2, which has no \
         such message; it needs version 3",
    );
    for (version, has, lacks) in [
        (ProtocolVersion::V1, "BCORYIUDTM", "SEcAbPKrp"),
        (ProtocolVersion::V2, "BCORYIUDTMSEcA", "bPKrp"),
        (ProtocolVersion::V3, "BCORYIUDTMSEcAbPKrp", ""),
        (ProtocolVersion::V4, "BCORYIUDTMSEcAbPKrp", ""),
    ] {
        let unknown = |tag: char| {
            let bytes = Bytes::copy_from_slice(tag.to_string().as_bytes());
            Decoder::new(version).decode(bytes).unwrap_err().is_unknown_message()
        };
        assert!(has.chars().all(|tag| !unknown(tag)), "version {version}");
        assert!(lacks.chars().all(unknown), "version {version}");
    }
}

#[test]
fn a_block_that_is_opened_or_closed_twice() {
    let error = check(
        decoder_in_block(),
        STREAM_START,
        "Stream Start: message type at byte 0: came between Stream Start and Stream Stop",
    );
    assert!(error.is_out_of_order());
    check(decoder(), b"E", "Stream Stop: message type at byte 0: came without a Stream Start before it");
    let mut closed = decoder_in_block();
    closed.decode(Bytes::from_static(b"E")).unwrap();
    check(closed, b"E", "Stream Stop: message type at byte 0: came without a Stream Start before it");
    for tag in "BCScAbPKrp".chars() {
        let bytes = Bytes::copy_from_slice(tag.to_string().as_bytes());
        assert!(decoder_in_block().decode(bytes).unwrap_err().is_out_of_order(), "{tag} was let into a block");
    }
}

/// A Stream Start or Stop that was refused neither opened a block nor closed it.
#[test]
fn an_error_leaves_the_decoder_as_it_was() {
    let mut decoder = decoder();
    decoder.decode(Bytes::from_static(b"S\0\0\0\x07\x01!")).unwrap_err();
    decoder.decode(Bytes::from_static(b"I\0\0\x40\0N\0\0")).unwrap();
    let mut inside = decoder_in_block();
    inside.decode(Bytes::from_static(b"E!")).unwrap_err();
    inside.decode(Bytes::from_static(b"I\0\0\0\x07\0\0\x40\0N\0\0")).unwrap();
}

#[test]
fn frames() {
    let error = |bytes| Frame::parse(Bytes::from_static(bytes)).unwrap_err().to_string();
    assert_eq!(error(b""), "replication frame: frame type at byte 0: 1 bytes needed, 0 left");
    assert_eq!(
        error(b"x"),
        "replication frame: frame type at byte 0: expected 'w' (XLogData) or 'k' (keepalive), found 'x' (0x78)"
    );
    assert_eq!(error(b"w\0\0\0\0\0\0\0\x01\0"), "XLogData: end of WAL at byte 9: 8 bytes needed, 1 left");
    assert_eq!(
        error(b"k\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\x02"),
        "Primary keepalive message: reply request at byte 17: 0x02 holds flags that the protocol does not define"
    );
    assert_eq!(
        error(b"k\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\x01\0"),
        "Primary keepalive message: end of message at byte 18: 1 bytes follow the last field"
    );
    assert_eq!(
        StatusUpdate::parse(Bytes::from_static(b"h")).unwrap_err().to_string(),
        "Standby status update: frame type at byte 0: expected 'r', found 'h' (0x68)"
    );
}

/// Errors go to logs: what a row held must not.
#[test]
fn no_row_data_in_errors() {
    let mut decoder = decoder();
    let error =
        decoder.decode(Bytes::from_static(b"I\0\0\x40\0N\0\x02t\0\0\0\x06secrett\0\0\0\x0asecret")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}
