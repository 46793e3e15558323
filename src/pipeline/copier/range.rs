//! Where a chunk begins and ends in the order of a table's key, and how many rows it has.

use pgoutput::{Tuple, Value};

use super::{chunk::CHUNK_ROWS_MAX, table::Copying};
use crate::{
    catalog::{KeyRange, ReadOrder, SnapshotTable},
    failure::{Code, Failure},
    snapshot::RowKey,
};

/// What reads the next rows, or those that are to be read again.
pub(super) fn statement(
    copying: &Copying,
    table: &SnapshotTable,
    order: &ReadOrder,
    key: &RowKey,
    up_to: Option<&[String]>,
) -> Result<String, Failure> {
    if let Some(again) = &copying.again {
        return Ok(table.copy().of_rows(order, key.names(), &again.keys));
    }
    let after = copying.ahead.after.as_deref().map(place).transpose()?;
    let up_to = up_to.map(place).transpose()?;
    let range = KeyRange {
        key: order,
        after: after.as_ref(),
        up_to: up_to.as_ref(),
        condition: copying.ahead.condition.as_deref(),
        rows_max: copying.chunk_rows as u64,
    };
    table.copy().of_keys(&range).ok_or_else(no_key)
}

/// A place in the order, by its values.
pub(super) fn place(values: &[String]) -> Result<Tuple, Failure> {
    let place = Tuple::from_values(values.iter().map(|value| Value::Text(value.as_bytes())));
    place.map_err(|error| Failure::caused(Code::Internal, error))
}

pub(super) fn no_key() -> Failure {
    Failure::new(Code::CheckpointCorrupt, "the cursor of the copy is no key of the table")
}

/// The values of a place in the order, of which none is null.
pub(super) fn texts(place: &Tuple) -> Vec<String> {
    let text = |value| match value {
        // The client encoding is UTF-8.
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Null | Value::UnchangedToast | Value::Binary(_) => String::new(),
    };
    place.iter().map(text).collect()
}

/// How many rows the next chunk is to have, by how large those of this one were.
pub(super) fn next_chunk_rows(asked: usize, rows: usize, cost: usize, meant: usize) -> usize {
    if rows == 0 {
        return asked;
    }
    let fitting = meant / (cost / rows).max(1);
    // Not too much at once: the next rows may be larger.
    fitting.clamp(1, CHUNK_ROWS_MAX).min(asked.saturating_mul(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_to_the_size_that_is_meant() {
        let next = |asked, rows, cost| next_chunk_rows(asked, rows, cost, 1 << 20);
        assert_eq!(next(500, 500, 500 * 100), 4000);
        assert_eq!(next(4000, 4000, 4000 * 100), (1 << 20) / 100);
        assert_eq!(next(20_000, 20_000, 20_000), CHUNK_ROWS_MAX);
        assert_eq!(next(500, 4, 8 << 20), 1, "rows of 2 MiB");
        assert_eq!(next(500, 0, 0), 500);
    }
}
