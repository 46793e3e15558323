//! The stream: how it ends, what it is told, and who says nothing.

use super::*;

#[tokio::test]
async fn the_stream_ends_with_an_error_that_says_what_to_do() {
    let whole = || [wal_data(0x20, b"B"), keepalive(0x30, 0)].concat();
    let shutdown = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0";
    let warning = b"SWARNUNG\0VWARNING\0C55000\0M\xc3\xbcbersprungen\0\0";
    let note = b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0";

    let error = stream_error(2, [whole(), message(b'E', shutdown)].concat()).await;
    assert_eq!((error.sqlstate(), error.action()), (Some("57P01"), Recovery::Reconnect));

    let error = stream_error(2, [whole(), message(b'N', note), message(b'N', warning)].concat()).await;
    assert!(matches!(error, Error::PublicationMissing { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Stop);

    let error = stream_error(2, [whole(), message(b'C', b"COPY 0\0")].concat()).await;
    assert!(matches!(error, Error::StreamEnded { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);

    let error = stream_error(2, [whole(), message(b'S', b"TimeZone\0Europe/Berlin\0")].concat()).await;
    assert!(error.to_string().contains("TimeZone"), "{error}");

    for hostile in
        [message(b'?', b"what"), vec![b'd', 0, 0, 0, 3], vec![b'd', 0xff, 0xff, 0xff, 0xff], message(b'E', b"S")]
    {
        let error = stream_error(2, [whole(), hostile].concat()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Stop);
    }

    let mut insert = b"I\0\0\x40\x01N".to_vec();
    insert.resize(1000, b'x');
    let error = stream_error(2, [whole(), wal_data(0x1_0000_0040, &insert)].concat()).await;
    let Error::FrameTooLarge { announced_bytes, limit_bytes, position, relation, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*announced_bytes, *limit_bytes), (1025, 1000));
    assert_eq!((*position, *relation), (Some(Lsn::from(0x1_0000_0040)), Some(Oid::from(0x4001))));
    assert!(error.to_string().contains("1/40, a change of the relation with OID 16385"), "{error}");
    assert_eq!(error.action(), Recovery::Stop);
}

#[tokio::test]
async fn a_server_that_hangs_up_is_connected_to_again() {
    let (url, server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.send(&wal_data(0x20, b"B")[..20]).await;
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    server.await.expect("no surprise");
    let error = ends_after(&mut reader, 0).await;
    assert!(matches!(error, Error::Closed { .. } | Error::Io { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
}

#[tokio::test]
async fn a_frame_of_an_unknown_kind_is_an_error_of_its_own() {
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.send(&[wal_data(0x20, b"B"), message(b'd', b"?")].concat()).await;
        server.rest().await
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    let mut frames = reader.read().await.expect("two frames").into_iter();
    assert_eq!(frames.len(), 2);
    assert!(matches!(frames.next(), Some(Ok(Frame::WalData(data))) if data.wal_start == Lsn::from(0x20)));
    assert!(matches!(frames.next(), Some(Err(Error::Frame { .. }))));
    assert!(frames.next().is_none());
}

#[tokio::test]
async fn feedback_tells_what_was_received_and_confirmed_and_never_takes_it_back() {
    let (url, server) = serve(|mut server| async move {
        server.stream("0").await;
        let mut updates = vec![server.status().await];
        server.send(&[wal_data(0x20, b"B"), wal_data(0x30, b"C")].concat()).await;
        updates.push(server.status().await);
        server.send(&keepalive(0x40, 1)).await;
        updates.push(server.status().await);
        updates.push(server.status().await);
        let last = server.rest().await;
        (updates, last)
    })
    .await;
    // No timer may help: only what happens makes it speak.
    let never = Duration::from_hours(1);
    let settings = StreamSettings { status_interval: never, idle_timeout: Some(never), ..StreamSettings::default() };
    let (mut reader, feedback) = start(&url, settings).await;

    let mut count = 0;
    while count < 2 {
        count += reader.read().await.expect("a chunk").frames_len();
    }
    let ahead = feedback.advance(Lsn::from(0x31)).expect_err("not received");
    assert!(matches!(ahead, Error::ConfirmedBeyondReceived { .. }), "{ahead}");
    feedback.advance(Lsn::from(0x30)).expect("received");
    feedback.advance(Lsn::from(0x20)).expect("received");
    assert_eq!(reader.read().await.expect("a keepalive").frames_len(), 1, "it asks for a reply");
    sent(&feedback, |positions| positions.written >= Lsn::from(0x40)).await;
    feedback.clone().advance(Lsn::from(0x40)).expect("received");
    sent(&feedback, |positions| positions.flushed >= Lsn::from(0x40)).await;
    drop(reader);

    let (updates, last) = server.await.expect("no surprise");
    let positions: Vec<_> = updates
        .iter()
        .map(|update| (u64::from(update.written), u64::from(update.flushed), u64::from(update.applied)))
        .collect();
    assert_eq!(positions, [(0x10, 0, 0), (0x30, 0x30, 0x30), (0x40, 0x30, 0x30), (0x40, 0x40, 0x40)]);
    assert!(updates.iter().all(|update| !update.reply_requested));
    let (status, goodbye) = last.split_at(last.len() - 5);
    assert_eq!(goodbye, message(b'X', b""), "a reader that is dropped says goodbye");
    let status = StatusUpdate::parse(Bytes::copy_from_slice(&status[5..])).expect("one more status update");
    assert_eq!(status.flushed, Lsn::from(0x40));
}

/// Waits until the server was told.
async fn sent(feedback: &Feedback, enough: impl Fn(Positions) -> bool) {
    let told = async {
        while !enough(feedback.sent()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("a status update in time");
}

#[tokio::test]
async fn a_caller_that_confirms_nothing_is_heard_of_all_the_same() {
    let (url, server) = serve(|mut server| async move {
        server.stream("600").await;
        // The server is busy: nobody has to ask it whether it is there.
        let (read, mut write) = server.0.into_split();
        let busy = tokio::spawn(async move {
            while write.write_all(&wal_data(0x20, b"B")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut updates = Vec::new();
        let mut read = BufReader::new(read);
        while updates.len() < 4 {
            let mut message = [0; 5 + StatusUpdate::WIRE_BYTES];
            read.read_exact(&mut message).await.expect("a status update");
            updates.push(StatusUpdate::parse(Bytes::copy_from_slice(&message[5..])).expect("a status update"));
        }
        busy.abort();
        updates
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    let reading = tokio::spawn(async move { while reader.read().await.is_ok() {} });
    let updates = timeout(PATIENCE, server).await.expect("in time").expect("no surprise");
    assert!(updates.iter().all(|update| !update.reply_requested && update.flushed == Lsn::INVALID), "{updates:?}");
    reading.await.expect("an end with an error");
}

#[tokio::test]
async fn shutdown_confirms_and_waits_for_the_servers_end() {
    let (url, server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.status().await;
        server.send(&wal_data(0x20, b"C")).await;
        loop {
            match server.message().await {
                (b'd', body) => assert!(StatusUpdate::parse(body).expect("a status update").flushed <= Lsn::from(0x20)),
                (b'c', _) => break,
                other => panic!("{other:?}"),
            }
        }
        // What was on its way still comes.
        server.send(&wal_data(0x30, b"B")).await;
        server.send(&[message(b'c', b""), message(b'C', b"COPY 0\0"), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let (mut reader, feedback) = start(&url, StreamSettings::default()).await;
    reader.read().await.expect("a chunk");
    feedback.advance(Lsn::from(0x20)).expect("received");
    timeout(PATIENCE, reader.shutdown(PATIENCE)).await.expect("in time").expect("in good order");
    assert_eq!(feedback.sent().flushed, Lsn::from(0x20));
    assert_eq!(server.await.expect("no surprise"), message(b'X', b""));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        server.rest().await
    })
    .await;
    let (reader, _feedback) = start(&url, StreamSettings::default()).await;
    let error = timeout(PATIENCE, reader.shutdown(Duration::from_millis(50))).await.expect("in time");
    assert!(matches!(error, Err(Error::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_asked_and_then_given_up() {
    let (url, server) = serve(|mut server| async move {
        server.stream("60000").await;
        while !server.status().await.reply_requested {}
        server.send(&keepalive(0x20, 0)).await;
        // One answer buys the whole time again; then there are only questions.
        let mut questions = 0;
        while let Ok(b'd') = server.0.read_u8().await {
            let length = server.0.read_u32().await.expect("a length");
            let update = StatusUpdate::parse(server.bytes(length - 4).await).expect("a status update");
            questions += u32::from(update.reply_requested);
        }
        questions
    })
    .await;
    let settings = StreamSettings { idle_timeout: Some(Duration::from_millis(400)), ..StreamSettings::default() };
    let (mut reader, _feedback) = start(&url, settings).await;
    let error = ends_after(&mut reader, 1).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
    drop(reader);
    assert!(server.await.expect("no surprise") >= 2, "it is asked more than once");
}

#[tokio::test]
async fn a_timeout_that_nobody_has_chosen_is_brought_down() {
    let max = Some(Duration::from_secs(9));
    for (configured_ms, is_chosen, set) in [
        ("60000", "f", Some("SET wal_sender_timeout = '9000ms'")),
        ("0", "f", Some("SET wal_sender_timeout = '9000ms'")),
        ("60000", "t", None),
        ("0", "t", None),
        ("5000", "f", None),
    ] {
        let (url, server) = serve(async move |mut server: Server| {
            let set = server.stream_with(configured_ms, is_chosen).await;
            server.rest().await;
            set
        })
        .await;
        let (reader, _feedback) =
            start(&url, StreamSettings { sender_timeout_max: max, ..StreamSettings::default() }).await;
        drop(reader);
        assert_eq!(server.await.expect("no surprise").as_deref(), set, "{configured_ms} {is_chosen}");
    }
}

#[tokio::test]
async fn a_caller_that_stalls_does_not_take_the_server_for_dead() {
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        for _ in 0..4 {
            while !server.status().await.reply_requested {}
            server.send(&keepalive(0x20, 0)).await;
        }
        server.rest().await
    })
    .await;
    let settings = StreamSettings { idle_timeout: Some(Duration::from_millis(300)), ..StreamSettings::default() };
    let (mut reader, _feedback) = start(&url, settings).await;
    // Not a wait for something to happen: the time in which the caller does not read is what is tested.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(reader.read().await.expect("the server answered meanwhile").frames_len() > 0);
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    const FRAMES: u64 = 3000;
    let (url, _server) = serve(|mut server| async move {
        server.stream("60000").await;
        for number in 1..=FRAMES {
            let frame = wal_data(number, &[b'B'; 40]);
            let (first, second) = frame.split_at(usize::try_from(number).expect("small") % frame.len());
            server.send(first).await;
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
            server.send(second).await;
        }
        server.rest().await
    })
    .await;
    let (mut reader, _feedback) = start(&url, StreamSettings::default()).await;
    let mut expected = 1;
    while expected <= FRAMES {
        let chunk = tokio::select! {
            biased;
            chunk = reader.read() => chunk.expect("a chunk"),
            () = tokio::task::yield_now() => continue,
        };
        for frame in chunk {
            let Frame::WalData(data) = frame.expect("well formed") else { panic!("no keepalive was sent") };
            assert_eq!(data.wal_start, Lsn::from(expected));
            expected += 1;
        }
    }
}
