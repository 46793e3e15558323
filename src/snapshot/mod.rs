//! Rows that were there before: copied beside the stream, in their place among its events.

mod at_once;
mod chunk;
pub(crate) mod control;
mod moved;
mod notice;
mod parts;
mod row_key;
mod shape;
mod sight;
mod signal;
mod state;
mod visibility;
mod window;

pub(crate) use at_once::{AtOnce, Passage};
pub(crate) use chunk::{Chunk, Emptied, Ending, Keys, Opened, Outcome, Request, Rows};
pub(crate) use moved::{Left, MovedRows, Settles};
pub(crate) use notice::{Happened, Notice};
pub(crate) use parts::{Advance, By, Cursor, PARTS_MAX, Parts, Taken, cut, is_place};
pub(crate) use row_key::RowKey;
pub(crate) use shape::Shape;
pub(crate) use sight::{Ceiling, ReplaySight, Sight, Streamed};
pub(crate) use signal::Signal;
pub(crate) use state::{ControlRecord, Progress, SignalsRecord, StreamRecord, TableRecord};
pub(crate) use visibility::{FullXid, NewestLook, NoSnapshot, Visibility};
pub(crate) use window::{Closed, Epoch, Fate, Spoilt, WindowId, Windows};
