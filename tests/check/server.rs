//! The server: its settings, its clock, its other slots, and who runs it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::Command,
};

use crate::{
    case::{Case, Checked},
    stack::{Server, Stack},
};

fn fix(checked: &Checked, severity: &str, id: &str) -> String {
    checked.one(severity, id)["fix"].as_str().unwrap_or_default().to_owned()
}

/// Settings that only they have are set for the test's own database, as on their servers for all.
#[test]
fn on_servers_that_are_run_by_others_the_fix_is_theirs() {
    let mut case = Case::new("hosting");
    let role = case.as_role("LOGIN");
    for (setting, replicate, administrator, keep) in [
        ("rds.logical_replication", "GRANT rds_replication TO", "rds_superuser", "aws rds modify-db-parameter-group"),
        ("cloudsql.logical_decoding", "REPLICATION", "cloudsqlsuperuser", "gcloud sql instances patch"),
        ("azure.extensions", "REPLICATION", "azure_pg_admin", "az postgres flexible-server parameter set"),
    ] {
        case.sql(&format!("ALTER DATABASE {} SET {setting} = 'off'", case.name));
        let checked = case.check();
        checked.refuses("replication-attribute", "", replicate);
        checked.refuses("replication-attribute", "", &format!("\"{role}\""));
        checked.refuses("replication-attribute", "", administrator);
        let keeps = fix(&checked, "warning", "max-slot-wal-keep-size");
        assert!(keeps.starts_with(keep) && !checked.text.contains("ALTER SYSTEM"), "{}", checked.text);
        case.sql(&format!("ALTER DATABASE {} RESET {setting}", case.name));
    }
    let checked = case.check();
    assert!(fix(&checked, "warning", "max-slot-wal-keep-size").starts_with("ALTER SYSTEM SET"), "{}", checked.text);
}

#[test]
fn a_time_limit_of_the_role_that_is_not_its_own_is_named() {
    let mut case = Case::new("limits");
    let role = case.as_role("LOGIN SUPERUSER");
    let set = |case: &Case, setting: &str, value: &str| {
        case.sql(&format!("ALTER ROLE {role} IN DATABASE {} SET {setting} = '{value}'", case.name));
    };
    // What the program sets for itself holds, whatever the role has.
    for setting in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    {
        set(&case, setting, "1ms");
    }
    let checked = case.check();
    checked.one("ok", "session-timeouts");
    checked.has_only_errors(&[]);
    if case.major() >= 17 {
        set(&case, "transaction_timeout", "1h");
        // Its advice is good.
        case.sql(&fix(&case.check(), "warning", "session-timeouts"));
        case.check().one("ok", "session-timeouts");
    }
    case.sql(&format!("ALTER ROLE {role} IN DATABASE {} RESET ALL", case.name));
}

#[test]
fn slots_of_others_that_keep_much_are_named() {
    let case = Case::new("others");
    let slot = format!("other_{}", std::process::id());
    // As a standby makes it.
    case.sql(&format!("SELECT pg_create_physical_replication_slot('{slot}', true)"));
    let mine = |checked: &Checked| {
        checked
            .of("other-slots", "warning")
            .into_iter()
            .find(|warning| warning["about"] == format!("slot {slot}"))
            .cloned()
    };
    assert!(mine(&case.check()).is_none());
    // More than the server would keep of itself. It is a shared one, and this is for a moment.
    case.sql("ALTER SYSTEM SET max_wal_size = '32MB'");
    case.sql("SELECT pg_reload_conf()");
    case.sql("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000)) FROM generate_series(1, 150)");
    let checked = case.check();
    case.sql("ALTER SYSTEM RESET max_wal_size");
    case.sql("SELECT pg_reload_conf()");
    let warning = mine(&checked).unwrap_or_else(|| panic!("{}", checked.text));
    let found = warning["found"].as_str().unwrap_or_default();
    assert!(found.contains("MiB of log (wal_status extended); nobody reads from it"), "{found}");
    case.sql(warning["fix"].as_str().and_then(|fix| fix.split_once(": ")).expect("a statement").1);
    assert!(mine(&case.check()).is_none());
}

#[test]
fn what_a_failover_would_leave_behind_is_said() {
    let mut case = Case::new("failover");
    case.postgres = "failover = true".into();
    if case.major() < 17 {
        assert!(fix(&case.check(), "warning", "failover").contains("upgrade to 17"));
        return;
    }
    assert!(
        fix(&case.check(), "warning", "failover").contains("SET synchronized_standby_slots = 'SLOT-OF-THE-STANDBY'")
    );
    let slot = format!("standby_{}", std::process::id());
    case.sql(&format!("SELECT pg_create_physical_replication_slot('{slot}')"));
    case.sql(&format!("ALTER SYSTEM SET synchronized_standby_slots = '{slot}'"));
    case.sql("SELECT pg_reload_conf()");
    let checked = case.check();
    case.sql("ALTER SYSTEM RESET synchronized_standby_slots");
    case.sql("SELECT pg_reload_conf()");
    case.sql(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    let found = checked.one("warning", "failover")["found"].as_str().unwrap_or_default();
    assert!(found.contains(&format!("names {slot}, from which no standby reads")), "{}", checked.text);
}

/// The program's clock is set apart from the server's by a library that it is made to load.
#[test]
fn clocks_that_differ_are_named() {
    const SHIFTED: &str = "
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <time.h>
        int clock_gettime(clockid_t clock, struct timespec *at) {
            int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, \"clock_gettime\");
            int result = real(clock, at);
            if (result == 0 && clock == CLOCK_REALTIME) at->tv_sec += 40;
            return result;
        }";
    let mut case = Case::new("clock");
    case.check().one("ok", "clock-skew");
    let folder = tempfile::tempdir().expect("a folder");
    let (source, library) = (folder.path().join("shifted.c"), folder.path().join("shifted.so"));
    fs::write(&source, SHIFTED).expect("written");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    assert!(compiled.expect("librdkafka was built with a C compiler").success());
    case.environment.push(("LD_PRELOAD".into(), library.to_str().expect("UTF-8").to_owned()));
    let checked = case.check();
    let found = checked.one("warning", "clock-skew")["found"].as_str().unwrap_or_default();
    // Less what an answer takes.
    assert!(
        found.starts_with("the server's clock is 39.") || found.starts_with("the server's clock is 40."),
        "{found}"
    );
    assert!(found.ends_with("s behind this machine's"), "{found}");
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

/// Makes a standby of the server for as long as something is looked at, one that waits for a primary which never comes. However that ends, the server is
/// its own master again: others use it.
fn as_standby(case: &mut Case, look: impl FnOnce(&mut Case)) {
    let signal = PathBuf::from(case.value("SHOW data_directory")).join("standby.signal");
    case.lease.stop(Server::Postgres);
    fs::write(&signal, "").expect("written");
    // The server is another user's.
    fs::set_permissions(&signal, fs::Permissions::from_mode(0o666)).expect("its mode is set");
    case.lease.start(Server::Postgres);
    let looked = panic::catch_unwind(AssertUnwindSafe(|| look(case)));
    case.lease.stop(Server::Postgres);
    fs::remove_file(&signal).expect("it is still there");
    case.lease.start(Server::Postgres);
    if let Err(panicked) = looked {
        panic::resume_unwind(panicked);
    }
}

#[test]
fn a_standby_is_refused_as_run_refuses_it() {
    let mut case = Case::with(Stack::exclusive(), "standby");
    as_standby(&mut case, |case| {
        assert_eq!(case.value("SELECT pg_is_in_recovery()"), "t");
        // Of a publication that somebody else keeps there would be one.
        for manage in [true, false] {
            case.postgres = format!("manage = {manage}");
            let checked = case.check();
            checked.refuses("standby", "the server is a standby", "set the host in postgres.url to the primary");
            let refused = case.pgsluice(&["run"]).output().expect("it runs");
            assert_eq!(refused.status.code(), Some(3));
            let told = String::from_utf8_lossy(&refused.stderr);
            assert!(told.contains("[postgres-settings] the server is a standby"), "{told}");
        }
    });
    case.postgres.clear();
    case.check().has_only_errors(&[]);
}
