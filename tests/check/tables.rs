//! The tables, and the publication that holds them.

use crate::case::Case;

#[test]
fn tables_that_would_break_or_stop_something_are_named() {
    let mut case = Case::new("tables");
    case.sql("CREATE TABLE notes (body text); CREATE VIEW latest AS SELECT 1 AS one");
    case.sql(r#"CREATE TABLE words (id int PRIMARY KEY, "a b" text, a_b text)"#);
    case.tables = r#"["public.*", "public.latest", "Public.Orders", "public.nothing", "later_*.*"]"#.into();
    let checked = case.check();
    let fix = "ALTER TABLE \"public\".\"notes\" REPLICA IDENTITY FULL";
    checked.refuses("replica-identity-missing", "public.notes: it has no primary key", fix);
    checked.refuses("schema-unrepresentable", "\"a b\" and \"a_b\"", "RENAME COLUMN \"a_b\" TO");
    checked.refuses("pattern-unmatched", "public.latest: latest is a view", "take it out");
    checked.refuses("pattern-unmatched", "Public.Orders: ", "did you mean public.orders?");
    checked.refuses("pattern-unmatched", "public.nothing: ", "postgres.tables");
    assert_eq!(checked.one("warning", "pattern-unmatched")["about"], "later_*.*");
    checked.has_only_errors(&["replica-identity-missing", "schema-unrepresentable", "pattern-unmatched"]);

    case.tables = r#"["elsewhere.*"]"#.into();
    let checked = case.check();
    checked.refuses("pattern-unmatched", "elsewhere.*: ", "correct the pattern");
    checked.has_only_errors(&["pattern-unmatched"]);
}

#[test]
fn tables_are_left_out_whole() {
    let mut case = Case::new("left_out");
    case.sql("CREATE TABLE tmp_notes (body text)");
    case.sql(
        "CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (0) TO (10)",
    );
    case.postgres = r#"exclude_tables = ["public.tmp_*", "public.events", "later_*.*"]"#.into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "a table without identity is left out: {}", checked.text);
    assert_eq!(checked.one("ok", "tables")["found"], "1: public.orders");
    let unmatched = checked.one("warning", "pattern-unmatched");
    assert_eq!(unmatched["about"], "later_*.*");
    assert_eq!(unmatched["why"], "what it was to leave out is streamed");

    // Rows of the partition come under the name of the table that is asked for.
    case.postgres = r#"exclude_tables = ["public.tmp_*", "public.events_old", "Public.Orders"]"#.into();
    let checked = case.check();
    checked.refuses(
        "config-invalid",
        "public.events_old, a partition of public.events",
        "publish_via_partition_root = false",
    );
    checked.refuses("pattern-unmatched", "Public.Orders: ", "did you mean public.orders?");
    case.postgres =
        "exclude_tables = [\"public.tmp_*\", \"public.events_old\"]\npublish_via_partition_root = false".into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

#[test]
fn a_publication_that_is_not_managed_is_checked_only() {
    let mut case = Case::new("unmanaged");
    case.postgres = "manage = false\npublication = \"sales\"\nslot = \"check_unmanaged\"".into();
    let checked = case.check();
    checked.refuses(
        "publication-missing",
        "publication sales",
        "CREATE PUBLICATION \"sales\" FOR TABLE \"public\".\"orders\"",
    );
    let slot = "pg_create_logical_replication_slot('check_unmanaged', 'pgoutput')";
    checked.refuses("slot-missing", "check_unmanaged does not exist", slot);

    case.sql(
        "CREATE TABLE lines (id int PRIMARY KEY); CREATE PUBLICATION sales FOR TABLE orders WITH (publish = 'insert')",
    );
    let checked = case.check();
    let fix = "ALTER PUBLICATION \"sales\" ADD TABLE \"public\".\"lines\"";
    checked.refuses("publication-mismatch", "lacks public.lines", fix);
    case.sql(fix);
    let checked = case.check();
    let warning = checked.one("warning", "publication-operations");
    assert_eq!(warning["found"], "publication sales leaves out update, delete, truncate");
    checked.has_only_errors(&["slot-missing"]);
}
