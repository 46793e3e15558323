//! Changes of a table that is copied at once: left out, or waiting in the middle of a transaction.

use tokio::sync::{mpsc::Sender, oneshot};

use super::*;
use crate::snapshot::{Ending, MovedRows, Notice, Outcome, Request, Rows, Spoilt, TableRecord, WindowId};

const WINDOW: WindowId = WindowId(1);

/// A source whose table is owed a copy, and who asks for it.
fn owing(resume: Position) -> (Fixture, Sender<Request>) {
    let Fixture { source, works } = Fixture::new(resume);
    let (requests, receiver) = mpsc::channel(16);
    (Fixture { source: source.copying(receiver, MovedRows::new([], 0), vec![WATCHED.into()], 0), works }, requests)
}

async fn ask(requests: &Sender<Request>, request: Request) {
    requests.send(request).await.expect("the source is there");
}

async fn take(fixture: &mut Fixture, requests: &Sender<Request>) {
    let (opened, _answer) = oneshot::channel();
    ask(requests, Request::Take { window: WINDOW, table: WATCHED.into(), opened }).await;
    fixture.source.serve_copies().await.expect("it is served");
}

/// The snapshot, whose log ends at a position.
async fn taken(requests: &Sender<Request>, snapshot: &str, until: u64) -> oneshot::Receiver<Result<(), Spoilt>> {
    let (accepted, answer) = oneshot::channel();
    let snapshot = snapshot.parse().expect("a snapshot");
    ask(requests, Request::Taken { window: WINDOW, snapshot, until: until.into(), accepted }).await;
    answer
}

/// All rows that there are, which are none.
async fn rows(requests: &Sender<Request>) -> oneshot::Receiver<Outcome> {
    let record = TableRecord::new("public", "item", Vec::new(), 1).owed();
    let told = || Notice::of_table(crate::snapshot::Happened::Started, &record);
    let (outcome, answer) = oneshot::channel();
    let rows = Rows {
        emptied: None,
        batch: RecordBatch::new(),
        cursor: record.attachment(WATCHED.into()),
        told: told(),
        end: Some(Ending { record: record.ended(2).attachment(WATCHED.into()), told: told() }),
        charge: Arc::new(MemoryBudget::new(1)).hold(0).await,
        outcome,
    };
    ask(requests, Request::Rows { window: WINDOW, rows: Box::new(rows) }).await;
    answer
}

/// What was handed on, in words.
fn told(works: &[Work]) -> Vec<String> {
    let topics = |delivery: &Delivery| {
        let last = |topic: &str| topic.rsplit('.').next().expect("a name").to_owned();
        delivery.batch.iter().map(|record| last(record.topic)).collect::<Vec<_>>().join(" ")
    };
    let tell = |work: &Work| match work {
        Work::Records(delivery) => {
            let split = delivery.end.split.map_or_else(String::new, |split| {
                format!(" split {}+{} {}", split.changes, split.messages, split.ordinal)
            });
            format!("{}: {}{split}", delivery.end.end_lsn, topics(delivery))
        }
        Work::Copied(copied) => {
            let said = |attachment: &Attachment| {
                let value = attachment.value.as_deref().expect("a record");
                String::from_utf8_lossy(value).contains("ended_at_ms")
            };
            format!("ended: {:?}", copied.attachments.iter().map(said).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    works.iter().map(tell).collect()
}

/// What is handed on while a change waits does not cover it, and it takes its place among the events all the same.
#[test]
fn a_change_that_the_snapshot_does_not_see_waits_for_the_rows() {
    let runtime = runtime();
    let (mut fixture, requests) = owing(Position::at(Lsn::from(100)));
    runtime.block_on(async {
        take(&mut fixture, &requests).await;
        fixture.message(190, begin(200)).await.expect("it begins");
        fixture.message(190, message(190, true, true)).await.expect("a message");
        let copy = async {
            let accepted = taken(&requests, "700:701:700", 150).await;
            let outcome = rows(&requests).await;
            (accepted.await.expect("it is served"), outcome)
        };
        let (waited, (accepted, mut outcome)) = tokio::join!(fixture.message(190, insert(WATCHED)), copy);
        waited.expect("it is written");
        assert_eq!(accepted, Ok(()));
        assert!(outcome.try_recv().is_err(), "the stream has not passed what the snapshot sees");
        fixture.message(210, commit(200, 210)).await.expect("its end");
        assert!(outcome.try_recv().is_ok(), "now it has");
        fixture.source.flush(true).await.expect("there is room");
    });
    assert_eq!(
        told(&fixture.handed_on()),
        ["0/64: transaction message split 0+1 1", "ended: [false]", "0/D2: item transaction", "ended: [true]"]
    );
}

/// It is left out, before the snapshot is there or after, and takes its place among the events.
#[test]
fn a_change_that_the_copy_has_is_left_out_and_counted() {
    let runtime = runtime();
    for is_taken in [false, true] {
        let (mut fixture, requests) = owing(Position::at(Lsn::from(100)));
        runtime.block_on(async {
            if is_taken {
                take(&mut fixture, &requests).await;
                drop(taken(&requests, "701:701:", 300).await);
                let _outcome = rows(&requests).await;
                fixture.source.serve_copies().await.expect("it is served");
                fixture.handed_on();
            }
            fixture.message(190, begin(200)).await.expect("it begins");
            fixture.message(190, insert(WATCHED)).await.expect("a change");
            fixture.message(190, truncate(WATCHED)).await.expect("another");
            fixture.message(190, message(190, true, true)).await.expect("a message");
            fixture.source.flush(false).await.expect("there is room");
        });
        assert_eq!(told(&fixture.handed_on()), ["0/64: transaction message split 2+1 3"], "{is_taken}");
    }
}

/// Somebody who was left out may be waiting for a standby still.
#[test]
fn a_snapshot_that_does_not_see_what_was_left_out_is_refused() {
    let runtime = runtime();
    let (mut fixture, requests) = owing(Position::at(Lsn::from(100)));
    runtime.block_on(async {
        fixture.message(190, begin(200)).await.expect("it begins");
        fixture.message(190, insert(WATCHED)).await.expect("a change");
        fixture.message(210, commit(200, 210)).await.expect("its end");
        take(&mut fixture, &requests).await;
        let accepted = taken(&requests, "700:701:700", 300).await;
        fixture.source.serve_copies().await.expect("it is served");
        assert_eq!(accepted.await.expect("an answer"), Err(Spoilt::StillRunning));
        take(&mut fixture, &requests).await;
        let accepted = taken(&requests, "701:701:", 300).await;
        fixture.source.serve_copies().await.expect("it is served");
        assert_eq!(accepted.await.expect("an answer"), Ok(()));
    });
}
