//! Connections and privileges.

use crate::case::{Case, SECRETS, closed_port};

#[test]
fn what_keeps_postgresql_from_being_reached_is_named_and_the_others_are_still_checked() {
    let mut case = Case::new("unreached");
    let good = case.url.clone();
    let check = |case: &mut Case, edit: &dyn Fn(&mut url::Url), id: &str, found: &str, fix: &str| {
        case.url.clone_from(&good);
        case.edit_url(edit);
        let checked = case.check();
        checked.refuses(id, found, fix);
        checked.has_only_errors(&[id]);
        checked.one("ok", "kafka-reachable");
        checked.one("ok", "registry-reachable");
    };
    let set_password = |url: &mut url::Url| url.set_password(Some(SECRETS[1])).expect("it has a host");
    check(&mut case, &set_password, "postgres-authentication", "password", "postgres.password_file");
    check(
        &mut case,
        &|url| url.set_path("nowhere"),
        "postgres-database",
        "nowhere",
        "correct the database in postgres.url",
    );
    let set_host = |url: &mut url::Url| url.set_host(Some("database.invalid")).expect("a host");
    check(&mut case, &set_host, "postgres-unreachable", "database.invalid", "correct the host database.invalid");
    let port = closed_port();
    let set_port = |url: &mut url::Url| url.set_port(Some(port)).expect("a port");
    check(&mut case, &set_port, "postgres-unreachable", &port.to_string(), "listen_addresses");
    let require_tls = |url: &mut url::Url| url.set_query(Some("sslmode=require"));
    check(&mut case, &require_tls, "postgres-tls", "does not offer TLS", "sslmode");
}

#[test]
fn a_role_without_rights_is_told_each_that_it_lacks() {
    let mut case = Case::new("rights");
    let role = case.as_role("LOGIN");
    let checked = case.check();
    checked.refuses("replication-attribute", "", &format!("ALTER ROLE \"{role}\" REPLICATION"));
    checked.refuses(
        "publication-privilege",
        "CREATE on database",
        &format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"", case.name),
    );
    checked.refuses(
        "publication-privilege",
        "public.orders belongs to postgres",
        &format!("GRANT \"postgres\" TO \"{role}\""),
    );
    checked.has_only_errors(&["replication-attribute", "publication-privilege"]);
    let lacking = checked.one("warning", "table-privileges");
    assert_eq!(lacking["fix"], format!("GRANT SELECT ON TABLE \"public\".\"orders\" TO \"{role}\";"));

    // Its advice is good.
    case.sql(&format!(
        "ALTER ROLE {role} REPLICATION; GRANT CREATE ON DATABASE {} TO {role}; GRANT postgres TO {role}",
        case.name
    ));
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    checked.one("ok", "table-privileges");
    case.sql(&format!("DROP OWNED BY {role}"));
}
