//! `pgsluice setup`: what it prints is what is lacking, and what it has run is enough.

use std::process::Output;

use crate::case::Case;

fn run(case: &Case, arguments: &[&str], admin: &str) -> (String, Output) {
    let output = case.pgsluice(&[&["setup"], arguments].concat()).env("PGSLUICE_SETUP_URL", admin).output();
    let output = output.expect("it runs");
    case.assert_no_secret(&output);
    (String::from_utf8_lossy(&output.stdout).into_owned(), output)
}

#[test]
fn a_role_that_has_nothing_gets_what_check_asks_for_and_no_more() {
    let mut case = Case::new("setup");
    let admin = case.url.clone();
    case.sql(
        "CREATE TABLE no_key (id int); CREATE SCHEMA sales; CREATE TABLE sales.line (id int PRIMARY KEY);
         CREATE TABLE sales.other (id int PRIMARY KEY)",
    );
    case.tables = r#"["public.*", "sales.line"]"#.into();
    let role = case.as_role("NOLOGIN");

    let (told, output) = run(&case, &[], &admin);
    assert!(output.status.success(), "{told}");
    for part in [
        format!("ALTER ROLE \"{role}\" LOGIN;"),
        format!("ALTER ROLE \"{role}\" REPLICATION;"),
        format!("GRANT USAGE ON SCHEMA \"sales\" TO \"{role}\";"),
        format!("\"sales\".\"line\" TO \"{role}\";"),
        "CREATE PUBLICATION \"".to_owned(),
        "-- public.no_key is not published: it has no primary key".to_owned(),
    ] {
        assert!(told.contains(&part), "{part} is not in {told}");
    }
    assert!(!told.contains("other") && !told.contains("GRANT CREATE"), "{told}");
    assert_eq!(case.value("SELECT count(*) FROM pg_publication"), "0", "it only tells");

    let (told, output) = run(&case, &["--apply"], &admin);
    assert!(output.status.success() && told.starts_with("-- Done"), "{told}");
    let checked = case.check();
    assert_eq!(checked.of("table-privileges", "warning").len(), 0, "{}", checked.text);
    // What cannot be published yet is all that is lacking.
    checked.has_only_errors(&["replica-identity-missing", "publication-privilege"]);
    // Once everything is there, there is nothing to do, and the stream's own role can say so.
    case.sql("ALTER TABLE no_key ADD PRIMARY KEY (id)");
    run(&case, &["--apply"], &admin);
    let (told, _) = run(&case, &[], &case.url);
    assert!(told.starts_with(&format!("-- Role {role} has all that it needs")), "{told}");
    case.check().has_only_errors(&[]);
}

#[test]
fn who_may_not_grant_changes_nothing() {
    let mut case = Case::new("setup_denied");
    case.as_role("LOGIN REPLICATION");
    let (_, output) = run(&case, &["--apply"], &case.url);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("[postgres-refused]"));
    assert_eq!(case.value("SELECT count(*) FROM pg_publication"), "0");

    let (_, output) = run(&case, &[], &case.url.replace(&case.name, "postgres"));
    assert_eq!(output.status.code(), Some(2), "another database has other tables");
}

#[test]
fn a_table_s_name_is_run_by_nobody() {
    let mut case = Case::new("setup_hostile");
    let admin = case.url.clone();
    let victim = case.as_role("LOGIN");
    case.sql(&format!("CREATE TABLE \"x\nALTER ROLE {victim} SUPERUSER; --\r\nDROP TABLE y; --\" (a int)"));
    let (told, output) = run(&case, &[], &admin);
    assert!(output.status.success() && told.contains("SUPERUSER"), "{told}");
    // Whoever administers the database runs all that was printed.
    case.sql(&told);
    assert_eq!(
        case.value(&format!("SELECT rolsuper::text FROM pg_roles WHERE rolname = '{victim}'")),
        "false",
        "{told}"
    );
    // What is left is what cannot be published yet.
    case.check().has_only_errors(&["replica-identity-missing", "publication-privilege"]);
}
