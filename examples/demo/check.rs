//! The check: what a reader of the topics knows is what PostgreSQL holds.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{avro::Row, consumer::Table, screen::row_text, shop::TableInfo};

/// How a table and its topic compare.
pub(crate) struct Comparison {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// The first difference, and how many there are.
    pub(crate) difference: Option<String>,
    pub(crate) differences: usize,
}

/// Compares a table with what its topic tells: row by row, column by column, as the text that PostgreSQL prints.
pub(crate) async fn compare(client: &Client, info: &TableInfo, topic: &Table) -> Result<Comparison> {
    let mut table: BTreeMap<Vec<Option<String>>, Row> = BTreeMap::new();
    let mut columns = 0;
    // The simple protocol returns every value as text, so that no other conversion takes part.
    for message in client.simple_query(&format!("SELECT * FROM {}", info.name)).await? {
        match message {
            SimpleQueryMessage::RowDescription(description) => columns = description.len(),
            SimpleQueryMessage::Row(row) => {
                let value = |(index, column): (usize, &tokio_postgres::SimpleColumn)| {
                    (column.name().to_owned(), row.get(index).map(str::to_owned))
                };
                let row: Row = row.columns().iter().enumerate().map(value).collect();
                table.insert(key_of(&row, info.key)?, row);
            }
            _ => {}
        }
    }
    let mut comparison = Comparison { rows: table.len(), columns, difference: None, differences: 0 };
    for (key, row) in &table {
        match topic.rows.get(key) {
            Some(told) if told == row => {}
            Some(told) => {
                comparison.differ(format!("PostgreSQL: {}\nKafka:      {}", row_text(row, "="), row_text(told, "=")));
            }
            None => comparison.differ(format!("only PostgreSQL has {}", row_text(row, "="))),
        }
    }
    for (_, row) in topic.rows.iter().filter(|(key, _)| !table.contains_key(*key)) {
        comparison.differ(format!("only Kafka has {}", row_text(row, "=")));
    }
    Ok(comparison)
}

fn key_of(row: &Row, key: &[&str]) -> Result<Vec<Option<String>>> {
    let value = |name: &&str| {
        let found = row.iter().find(|(column, _)| column == name);
        found.map(|(_, value)| value.clone()).with_context(|| format!("there is no column {name}"))
    };
    key.iter().map(value).collect()
}

impl Comparison {
    fn differ(&mut self, difference: String) {
        self.differences += 1;
        self.difference.get_or_insert(difference);
    }
}
