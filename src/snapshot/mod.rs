//! Rows that were there before: copied beside the stream, in their place among its events.

mod chunk;
pub(crate) mod control;
mod moved;
mod row_key;
mod state;
mod visibility;
mod window;

pub(crate) use chunk::{Chunk, Keys, Opened, Outcome, Request};
pub(crate) use moved::{Left, MovedRows, Settles};
pub(crate) use row_key::RowKey;
pub(crate) use state::{ControlRecord, Progress, StreamRecord, TableRecord};
pub(crate) use visibility::Visibility;
pub(crate) use window::{Closed, Epoch, Fate, Spoilt, WindowId, Windows};
