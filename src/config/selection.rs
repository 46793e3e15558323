//! Which tables are asked for: those that one list of patterns names, without those that another one does.

use super::TablePattern;

/// The tables to stream.
#[derive(Clone, Debug)]
pub struct TableSelection {
    /// `postgres.tables`: at least one pattern.
    pub include: Vec<TablePattern>,
    /// `postgres.exclude_tables`: what is left out of that, with all of its partitions.
    pub exclude: Vec<TablePattern>,
}

impl TableSelection {
    /// Whether the name is asked for. What it may be a partition of is the caller's to ask for as well.
    pub fn includes(&self, schema: &str, table: &str) -> bool {
        self.include.iter().any(|pattern| pattern.matches(schema, table)) && !self.excludes(schema, table)
    }

    /// Whether the name is one of those that are left out, whatever else asks for it.
    pub fn excludes(&self, schema: &str, table: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(schema, table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excluded_is_not_included_whichever_pattern_is_narrower() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| TablePattern::parse(text).expect(text)).collect();
        let selection = TableSelection {
            include: patterns(&["public.*", "audit.log"]),
            exclude: patterns(&["*.tmp_*", "audit.*"]),
        };
        assert!(selection.includes("public", "orders"));
        assert!(!selection.includes("public", "tmp_orders"));
        assert!(!selection.includes("audit", "log"), "an exclusion rules");
        assert!(!selection.includes("other", "orders"));
        assert!(selection.excludes("other", "tmp_1"));
    }
}
