//! A row costs no allocation.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use common::table::{self, column, extension};
use encoder::{Change, EventContext, EventOrder, RecordBatch, TransactionContext};
use pgoutput::{Lsn, OldTuple, ReplicaIdentity, Timestamp, Xid};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps what `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer is from `alloc`, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_row_costs_no_allocation() {
    // Every type; 0 is hstore. Only a numeric of more than 38 digits does allocate.
    let types = [
        (20, -1, "1"),
        (16, -1, "t"),
        (17, -1, r"\x00ff"),
        (21, -1, "2"),
        (23, -1, "3"),
        (25, -1, "text"),
        (114, -1, "{}"),
        (700, -1, "1.5"),
        (701, -1, "-2.5e-300"),
        (1082, -1, "2024-02-29"),
        (1083, -1, "12:34:56"),
        (1114, -1, "2024-02-29 12:34:56.789"),
        (1184, -1, "0044-03-15 12:00:00+00 BC"),
        (1700, -1, "123456789012345678901234567890.5"),
        (1700, (38 << 16 | 2) + 4, "1.50"),
        (2950, -1, "123e4567-e89b-12d3-a456-426614174000"),
        (1186, -1, "1 day -02:00:00.5"),
        (26, -1, "12345"),
        (600, -1, "(1,2)"),
        (790, -1, "-$1,234.56"),
        (1266, -1, "12:34:56+02"),
        (1560, 9, "101010101"),
        (1562, -1, "1101"),
        (1007, -1, "{1,NULL,3}"),
        (1009, -1, r#"{a,"b c","q\"q",NULL}"#),
        (0, -1, r#""a"=>"1", "q\"q"=>NULL"#),
    ];
    let columns: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(index, (type_oid, type_modifier, _))| match type_oid {
            0 => extension(&format!("c{index}"), "hstore"),
            type_oid => column(&format!("c{index}"), *type_oid, *type_modifier),
        })
        .map(|column| if column.name == "c0" { column.key() } else { column })
        .collect();
    let row = types.map(|(.., text)| text);
    let plan = table::bind(table::compile(ReplicaIdentity::Full, &columns));
    let insert = table::insert(&row);
    let update = table::update(OldTuple::Full(table::row(&row)), &row);
    let delete = table::delete(OldTuple::Full(table::row(&row)));
    let transaction = TransactionContext::from_parts(Xid::from(1), Lsn::from(2), Timestamp::from(3));
    let context = EventContext { transaction: &transaction, lsn: Lsn::from(1), processed_unix_ns: 4 };
    let (mut order, mut batch) = (EventOrder::default(), RecordBatch::new());
    let snapshot = table::snapshot();
    let mut encode_all = || {
        batch.clear();
        for change in [Change::Insert(&insert), Change::Update(&update), Change::Delete(&delete), Change::Truncate] {
            plan.encode(change, &context, &mut order, &mut batch).unwrap();
        }
        plan.encode_read(&insert.new, &snapshot, 4, &mut batch).unwrap();
        batch.len()
    };
    // The first time, the batch grows.
    assert_eq!(encode_all(), 6);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the counter counts");
    for _ in 0..100 {
        encode_all();
    }
    assert_eq!(ALLOCATIONS.get(), before);
}
