//! Cuts the stream's bytes into messages, without copying them.
//!
//! From the first reply to `START_REPLICATION` on nearly everything is `CopyData`, a small message for each row, so
//! this is the hot path: one walk over the headers finds the whole frames, and one reference-counted slice hands them
//! out together. Nothing here does I/O, so every way to cut and to forge the bytes can be tested.

use bytes::{Buf, Bytes, BytesMut};
use pgoutput::{Lsn, Oid};

use crate::message::{HEADER_BYTES, body_bytes, parse_header, tag};

/// How much is read at once at most, in bytes, and so about how large a chunk gets.
pub(crate) const READ_BYTES: usize = 128 << 10;
/// With less room than this the buffer is renewed rather than filled up, in bytes.
const ROOM_BYTES_MIN: usize = 32 << 10;
/// What is not `CopyData` is small: errors, notices, settings. In bytes.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Of a frame: its type, two positions and a time. In bytes.
const WAL_DATA_HEADER_BYTES: usize = 25;
/// Enough of a frame to say of a change which relation it is, in bytes: the header, the message's type, an OID.
const DESCRIPTION_BYTES: usize = WAL_DATA_HEADER_BYTES + 1 + 4;

/// What comes next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Whole `CopyData` messages, one behind the other, with their headers.
    Frames(Frames),
    /// Another message.
    Control { tag: u8, body: Bytes },
    /// More must be read.
    Incomplete,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    pub(crate) bytes: Bytes,
    pub(crate) count: usize,
    /// The furthest position in them; [`Lsn::INVALID`] if there is none.
    pub(crate) received: Lsn,
    /// Whether a keepalive among them asks for a reply.
    pub(crate) reply_requested: bool,
}

/// Why the stream cannot be cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    Length { tag: u8, length: i32 },
    FrameTooLarge { announced_bytes: usize, position: Option<Lsn>, relation: Option<Oid> },
}

/// The bytes that were read and not handed out yet.
///
/// It holds at most one incomplete frame and what one read brings, so never more than the limit on a frame plus
/// [`READ_BYTES`]; a buffer that grew for a giant frame is given back after it. Slices that were handed out keep their
/// buffer alive beside it.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: BytesMut,
    /// The size with header of the incomplete message at the front; 0 if that is not known.
    needed_bytes: usize,
    grown: bool,
    frame_bytes_max: usize,
    /// Whether changes may have a transaction's id before their relation's, so that no relation can be told without
    /// decoding.
    streams_open_transactions: bool,
}

impl FrameBuffer {
    pub(crate) fn new(received: BytesMut, frame_bytes_max: usize, streams_open_transactions: bool) -> Self {
        Self { bytes: received, needed_bytes: 0, grown: false, frame_bytes_max, streams_open_transactions }
    }

    /// The buffer to read into, with room in it.
    pub(crate) fn with_room(&mut self) -> &mut BytesMut {
        let missing = self.needed_bytes.saturating_sub(self.bytes.len());
        let room = self.bytes.capacity() - self.bytes.len();
        if room < missing.max(ROOM_BYTES_MIN) {
            // An announced size is not believed before its bytes come: the buffer at most doubles.
            let wanted = missing.clamp(READ_BYTES, self.bytes.len().max(READ_BYTES));
            if room < wanted {
                self.grown |= wanted + self.bytes.len() > 2 * READ_BYTES;
                self.bytes.reserve(wanted);
            }
        }
        &mut self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what comes next: all whole frames before the first thing that is none.
    pub(crate) fn take(&mut self) -> Result<Item, FramingError> {
        let mut frames = Frames { bytes: Bytes::new(), count: 0, received: Lsn::INVALID, reply_requested: false };
        let mut end = 0;
        self.needed_bytes = 0;
        while let Some((tag, length)) = parse_header(&self.bytes[end..]) {
            let Some(body_bytes) = body_bytes(length) else {
                return self.frames_or(frames, end, Err(FramingError::Length { tag, length }));
            };
            if tag != tag::COPY_DATA {
                let control = self.control(end, tag, length, body_bytes);
                return if frames.count > 0 { Ok(self.split_frames(frames, end)) } else { control };
            }
            let rest = &self.bytes[end + HEADER_BYTES..];
            if body_bytes > self.frame_bytes_max {
                let outcome = if rest.len() < body_bytes.min(DESCRIPTION_BYTES) {
                    self.needed_bytes = HEADER_BYTES + DESCRIPTION_BYTES;
                    Ok(Item::Incomplete)
                } else {
                    Err(self.too_large(rest, body_bytes))
                };
                return self.frames_or(frames, end, outcome);
            }
            let Some(payload) = rest.get(..body_bytes) else {
                self.needed_bytes = HEADER_BYTES + body_bytes;
                break;
            };
            observe(payload, &mut frames);
            frames.count += 1;
            end += HEADER_BYTES + body_bytes;
        }
        self.frames_or(frames, end, Ok(Item::Incomplete))
    }

    /// The whole frames if there are any, since they came first; what follows them is found again next time.
    fn frames_or(
        &mut self,
        frames: Frames,
        end: usize,
        otherwise: Result<Item, FramingError>,
    ) -> Result<Item, FramingError> {
        if frames.count > 0 { Ok(self.split_frames(frames, end)) } else { otherwise }
    }

    fn split_frames(&mut self, mut frames: Frames, end: usize) -> Item {
        frames.bytes = self.bytes.split_to(end).freeze();
        self.shrink();
        Item::Frames(frames)
    }

    fn control(&mut self, start: usize, tag: u8, length: i32, body_bytes: usize) -> Result<Item, FramingError> {
        if body_bytes > CONTROL_BYTES_MAX {
            return Err(FramingError::Length { tag, length });
        }
        if start > 0 {
            return Ok(Item::Incomplete);
        }
        if self.bytes.len() < HEADER_BYTES + body_bytes {
            self.needed_bytes = HEADER_BYTES + body_bytes;
            return Ok(Item::Incomplete);
        }
        self.bytes.advance(HEADER_BYTES);
        Ok(Item::Control { tag, body: self.bytes.split_to(body_bytes).freeze() })
    }

    fn too_large(&self, payload: &[u8], announced_bytes: usize) -> FramingError {
        let is_change = payload.first() == Some(&b'w');
        let position = is_change.then(|| position(payload)).flatten();
        let relation = payload
            .get(WAL_DATA_HEADER_BYTES..)
            .and_then(|message| message.split_first())
            .filter(|(kind, _)| is_change && !self.streams_open_transactions && matches!(kind, b'I' | b'U' | b'D'))
            .and_then(|(_, rest)| Some(Oid::from(u32::from_be_bytes(*rest.first_chunk()?))));
        FramingError::FrameTooLarge { announced_bytes, position, relation }
    }

    /// Gives the memory of a giant frame back.
    fn shrink(&mut self) {
        if self.grown && self.bytes.len() <= READ_BYTES {
            let mut renewed = BytesMut::with_capacity(2 * READ_BYTES);
            renewed.extend_from_slice(&self.bytes);
            self.bytes = renewed;
            self.grown = false;
        }
    }
}

/// Notes what the connection itself must know of a frame. Whether the frame is well formed is found out when it is
/// parsed.
fn observe(payload: &[u8], frames: &mut Frames) {
    if let Some(position) = position(payload) {
        frames.received = frames.received.max(position);
    }
    // Of a keepalive: type, position, time, and the request.
    frames.reply_requested |= payload.first() == Some(&b'k') && payload.get(17) == Some(&1);
}

/// Where a change lies, or how far a keepalive says that the server is: the first field of both.
fn position(payload: &[u8]) -> Option<Lsn> {
    let bytes = payload.get(1..)?.first_chunk()?;
    Some(Lsn::from(u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&i32::try_from(body.len() + 4).expect("small").to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn wal_data(lsn: u64, message: &[u8]) -> Vec<u8> {
        let mut payload = vec![b'w'];
        payload.extend_from_slice(&lsn.to_be_bytes());
        payload.extend_from_slice(&lsn.to_be_bytes());
        payload.extend_from_slice(&7_i64.to_be_bytes());
        payload.extend_from_slice(message);
        payload
    }

    fn keepalive(lsn: u64, reply: u8) -> Vec<u8> {
        let mut payload = vec![b'k'];
        payload.extend_from_slice(&lsn.to_be_bytes());
        payload.extend_from_slice(&7_i64.to_be_bytes());
        payload.push(reply);
        payload
    }

    fn buffer(limit: usize) -> FrameBuffer {
        FrameBuffer::new(BytesMut::new(), limit, false)
    }

    /// All items of a stream that is fed in pieces, frames as their payloads.
    fn items(pieces: &[&[u8]], limit: usize) -> Result<Vec<(u8, Vec<u8>)>, FramingError> {
        let mut buffer = buffer(limit);
        let mut items = Vec::new();
        for piece in pieces {
            buffer.with_room().extend_from_slice(piece);
            loop {
                match buffer.take()? {
                    Item::Incomplete => break,
                    Item::Control { tag, body } => items.push((tag, body.to_vec())),
                    Item::Frames(mut frames) => {
                        for _ in 0..frames.count {
                            let (tag, length) = parse_header(&frames.bytes).expect("a whole frame");
                            let total = HEADER_BYTES + usize::try_from(length - 4).expect("checked");
                            items.push((tag, frames.bytes.split_to(total)[HEADER_BYTES..].to_vec()));
                        }
                        assert!(frames.bytes.is_empty(), "the frames fill their slice exactly");
                    }
                }
            }
        }
        assert!(buffer.is_empty());
        Ok(items)
    }

    fn sample() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let parts = vec![
            (b'd', wal_data(0x10, b"B")),
            (b'd', wal_data(0x20, b"Ihello")),
            (b'd', vec![]),
            (b'N', b"SWARNING\0\0".to_vec()),
            (b'd', keepalive(0x30, 1)),
            (b'c', vec![]),
            (b'C', b"COPY 0\0".to_vec()),
        ];
        (parts.iter().flat_map(|(tag, body)| message(*tag, body)).collect(), parts)
    }

    #[test]
    fn a_frame_may_be_split_at_every_byte() {
        let (stream, expected) = sample();
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            assert_eq!(items(&[first, second], LIMIT).as_ref(), Ok(&expected), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(items(&bytes, LIMIT).as_ref(), Ok(&expected), "byte by byte");
    }

    #[test]
    fn positions_and_the_wish_for_a_reply_are_noticed() {
        let mut buffer = buffer(LIMIT);
        for payload in [wal_data(0x30, b"B"), wal_data(0, b"R"), keepalive(0x20, 0)] {
            buffer.with_room().extend_from_slice(&message(b'd', &payload));
        }
        let Ok(Item::Frames(frames)) = buffer.take() else { panic!("whole frames") };
        assert_eq!((frames.count, frames.received, frames.reply_requested), (3, Lsn::from(0x30), false));

        buffer.with_room().extend_from_slice(&message(b'd', &keepalive(0x40, 1)));
        let Ok(Item::Frames(frames)) = buffer.take() else { panic!("whole frames") };
        assert_eq!((frames.count, frames.received, frames.reply_requested), (1, Lsn::from(0x40), true));
    }

    #[test]
    fn a_hostile_length_is_refused_at_once() {
        for length in [0_i32, 3, -1, i32::MIN] {
            for tag in [b'd', b'N', b'?'] {
                let mut stream = vec![tag];
                stream.extend_from_slice(&length.to_be_bytes());
                assert_eq!(items(&[&stream], LIMIT), Err(FramingError::Length { tag, length }));
            }
        }
        for length in [i32::MAX, i32::try_from(CONTROL_BYTES_MAX).expect("small") + 5] {
            let mut stream = vec![b'E'];
            stream.extend_from_slice(&length.to_be_bytes());
            assert_eq!(items(&[&stream], LIMIT), Err(FramingError::Length { tag: b'E', length }));
        }
    }

    #[test]
    fn a_frame_past_the_limit_is_named_as_soon_as_its_first_bytes_are_there() {
        let mut insert = b"I\0\0\x40\x01N".to_vec();
        insert.resize(2000, b'x');
        let stream = message(b'd', &wal_data(0x1_0000_0010, &insert));
        let expected = FramingError::FrameTooLarge {
            announced_bytes: 25 + 2000,
            position: Some(Lsn::from(0x1_0000_0010)),
            relation: Some(Oid::from(0x4001)),
        };
        let mut buffer = buffer(1000);
        for byte in &stream[..HEADER_BYTES + DESCRIPTION_BYTES - 1] {
            buffer.with_room().extend_from_slice(&[*byte]);
            assert_eq!(buffer.take(), Ok(Item::Incomplete));
        }
        buffer.with_room().extend_from_slice(&stream[HEADER_BYTES + DESCRIPTION_BYTES - 1..][..1]);
        assert_eq!(buffer.take(), Err(expected));
    }

    #[test]
    fn the_frames_before_one_past_the_limit_are_handed_out_first() {
        let mut stream = message(b'd', &wal_data(0x10, b"B"));
        stream.extend_from_slice(&message(b'd', &vec![b'w'; 2000]));
        let mut buffer = buffer(1000);
        buffer.with_room().extend_from_slice(&stream);
        assert!(matches!(buffer.take(), Ok(Item::Frames(frames)) if frames.count == 1));
        assert!(matches!(buffer.take(), Err(FramingError::FrameTooLarge { announced_bytes: 2000, .. })));
    }

    #[test]
    fn a_large_frame_that_is_no_change_has_no_relation() {
        let mut buffer = FrameBuffer::new(BytesMut::new(), 1000, true);
        buffer.with_room().extend_from_slice(&message(b'd', &wal_data(0x10, &[b'I'; 2000])));
        assert!(
            matches!(buffer.take(), Err(FramingError::FrameTooLarge { position: Some(_), relation: None, .. })),
            "with streaming a transaction's id comes first"
        );
    }

    #[test]
    fn an_announced_size_makes_no_room_before_its_bytes_come_and_none_is_kept_after() {
        let giant = message(b'd', &wal_data(0x10, &vec![b'I'; 32 << 20]));
        let mut buffer = buffer(64 << 20);
        buffer.with_room().extend_from_slice(&giant[..100]);
        assert_eq!(buffer.take(), Ok(Item::Incomplete));
        assert!(buffer.with_room().capacity() <= 4 * READ_BYTES, "five bytes bought {} bytes", buffer.bytes.capacity());
        for piece in giant[100..].chunks(READ_BYTES) {
            buffer.with_room().extend_from_slice(piece);
        }
        assert!(matches!(buffer.take(), Ok(Item::Frames(frames)) if frames.bytes.len() == giant.len()));
        assert!(buffer.with_room().capacity() <= 4 * READ_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..32)) {
            let mut buffer = buffer(1 << 10);
            'stream: for piece in &pieces {
                buffer.with_room().extend_from_slice(piece);
                loop {
                    match buffer.take() {
                        Ok(Item::Incomplete) => break,
                        Ok(_) => {}
                        Err(_) => break 'stream,
                    }
                }
                prop_assert!(buffer.bytes.capacity() <= 4 * READ_BYTES);
            }
        }

        #[test]
        fn cutting_changes_nothing(
            bodies in prop::collection::vec((prop::sample::select(vec![b'd', b'N', b'S']), prop::collection::vec(any::<u8>(), 0..100)), 1..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).chain([0, stream.len()]).collect();
            ends.sort_unstable();
            let pieces: Vec<&[u8]> = ends.windows(2).map(|range| &stream[range[0]..range[1]]).collect();
            prop_assert_eq!(items(&pieces, LIMIT), Ok(bodies));
        }
    }
}
