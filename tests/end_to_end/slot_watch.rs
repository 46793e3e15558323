//! How much log the server keeps for the slot is told while the stream runs.

use std::time::Duration;

use crate::harness::{stack::Stack, stream::Stream, wait_until};

#[test]
fn what_is_kept_for_the_slot_and_what_is_left_is_measured() {
    let stack = Stack::shared();
    let _settings = stack.settings();
    let stream = Stream::create(&stack, "slot_watch");
    stream.database.create_tables("create table public.item (id int primary key)");
    let program = stream.start_ready();
    wait_until(Duration::from_mins(1), "the slot was looked at", || {
        program.metric(r#"slot_wal_status{status="reserved"}"#).filter(|is_it| *is_it > 0.5)
    });
    assert_eq!(program.metric("slot_loss_seconds"), Some(f64::INFINITY));
    // Other tests use the server too: it is a limit that nobody comes near.
    stream.database.execute("alter system set max_slot_wal_keep_size = '1TB'");
    stream.database.execute("select pg_reload_conf()");
    let safe = wait_until(Duration::from_mins(1), "there is a limit", || {
        program.metric("slot_safe_bytes").filter(|bytes| bytes.is_finite())
    });
    stream.database.execute("alter system reset max_slot_wal_keep_size");
    stream.database.execute("select pg_reload_conf()");
    assert!(safe > 1e11 && safe < 1.2e12, "{safe}");
    program.terminate();
}
