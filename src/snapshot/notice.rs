//! What whoever reads the topic of notifications is told, in the form of Debezium's.

use serde_json::{Value, json};

use super::state::TableRecord;

/// Something that has happened to copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    happened: Happened,
    /// `schema.table`, and how many of its rows were copied.
    table: Option<(String, u64)>,
    /// What it has come to, in a word.
    status: Option<&'static str>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// The first rows of a table are written.
    Started,
    /// More of its rows are.
    InProgress,
    /// All rows of a table are.
    TableCompleted,
    /// Every table is copied.
    Completed,
    /// Somebody has stopped a table's copy, or the table is gone.
    Aborted,
    /// A table cannot be copied, now or at all.
    NotCopied,
    Paused,
    Resumed,
    /// The stream goes on behind a gap, and copies every table.
    BegunAnew,
}

impl Happened {
    /// Debezium's word for it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::InProgress => "IN_PROGRESS",
            Self::TableCompleted => "TABLE_SCAN_COMPLETED",
            Self::Completed => "COMPLETED",
            Self::Aborted => "ABORTED",
            Self::Paused => "PAUSED",
            Self::Resumed => "RESUMED",
            // Debezium has no words for these. Its table that could not be read is over, and ours is tried again.
            Self::NotCopied => "NOT_COPIED",
            Self::BegunAnew => "BEGUN_ANEW",
        }
    }
}

impl Notice {
    pub(crate) fn of_table(happened: Happened, record: &TableRecord) -> Self {
        let status = (happened == Happened::TableCompleted).then_some("SUCCEEDED");
        Self { happened, table: Some((format!("{}.{}", record.schema, record.table), record.rows)), status }
    }

    pub(crate) fn of_all(happened: Happened) -> Self {
        Self { happened, table: None, status: None }
    }

    /// A table, of which so many rows are, is not copied, for what has this code.
    pub(crate) fn not_copied(table: String, rows: u64, code: &'static str) -> Self {
        Self { happened: Happened::NotCopied, table: Some((table, rows)), status: Some(code) }
    }

    /// Whether it tells that a copy has begun.
    pub(crate) fn is_first(&self) -> bool {
        self.happened == Happened::Started
    }

    /// Key and value of its record.
    pub(crate) fn encode(&self, name: &str, id: &str, unix_ms: i64) -> (Vec<u8>, Vec<u8>) {
        // Debezium's map has texts for values.
        let mut data = json!({ "connector_name": name });
        if let Some((table, rows)) = &self.table {
            data["data_collections"] = Value::from(table.as_str());
            let current = match self.happened {
                Happened::TableCompleted => "scanned_collection",
                _ => "current_collection_in_progress",
            };
            data[current] = Value::from(table.as_str());
            data["total_rows_scanned"] = Value::from(rows.to_string());
        }
        if let Some(status) = self.status {
            data["status"] = Value::from(status);
        }
        let value = json!({
            "id": id,
            "aggregate_type": "Incremental Snapshot",
            "type": self.happened.as_str(),
            "additional_data": data,
            "timestamp": unix_ms,
        });
        (json!({ "id": id }).to_string().into_bytes(), value.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_debeziums() {
        let record = TableRecord::new("public", "item", Vec::new(), 0).advanced(None, 4711, 0);
        let encode = |notice: &Notice| {
            let (key, value) = notice.encode("shop", "1-2-3", 1_700_000_000_000);
            (String::from_utf8(key).expect("text"), String::from_utf8(value).expect("text"))
        };
        let (key, value) = encode(&Notice::of_table(Happened::TableCompleted, &record));
        assert_eq!(key, r#"{"id":"1-2-3"}"#);
        assert_eq!(
            value,
            r#"{"id":"1-2-3","aggregate_type":"Incremental Snapshot","type":"TABLE_SCAN_COMPLETED","additional_data":{"connector_name":"shop","data_collections":"public.item","scanned_collection":"public.item","total_rows_scanned":"4711","status":"SUCCEEDED"},"timestamp":1700000000000}"#
        );
        let (_, value) = encode(&Notice::not_copied("public.item".to_owned(), 500, "postgres-refused"));
        assert_eq!(
            value,
            r#"{"id":"1-2-3","aggregate_type":"Incremental Snapshot","type":"NOT_COPIED","additional_data":{"connector_name":"shop","data_collections":"public.item","current_collection_in_progress":"public.item","total_rows_scanned":"500","status":"postgres-refused"},"timestamp":1700000000000}"#
        );
        let (_, value) = encode(&Notice::of_all(Happened::Paused));
        assert_eq!(
            value,
            r#"{"id":"1-2-3","aggregate_type":"Incremental Snapshot","type":"PAUSED","additional_data":{"connector_name":"shop"},"timestamp":1700000000000}"#
        );
    }
}
