//! Before there is a stream: TLS, passwords, and what a server announces.

use super::*;

/// A password is asked for in clear text, over a connection that anybody may read or have taken over.
#[tokio::test]
async fn no_password_is_given_away_for_sql_either() {
    for parameters in ["disable&require_auth=scram-sha-256", "disable&require_auth=scram-sha-256,md5"] {
        let (url, server) = serve(async |mut server: Server| {
            let startup = server.startup().await;
            assert!(!startup.windows(11).any(|part| part == b"replication"), "this is no replication connection");
            server.send(&authentication(3, b"")).await;
            server.rest().await
        })
        .await;
        let options: ConnectOptions = (url + parameters).parse().expect("a URL");
        let outcome = timeout(PATIENCE, options.connect_sql(&[])).await.expect("an answer in time");
        assert!(matches!(outcome, Err(Error::Authentication { .. })), "{outcome:?}");
        let said = server.await.expect("the script ends");
        assert!(!said.windows(6).any(|part| part == b"secret"), "the password was sent");
    }
}

#[tokio::test]
async fn plain_text_behind_the_agreement_to_tls_is_an_attack() {
    // CVE-2021-23222: what follows would be taken for the server's first encrypted words.
    let (url, server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&[b"S".to_vec(), authentication(0, b""), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}require")).await;
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("tampers"), "{error}");
    assert_eq!(error.action(), Recovery::Stop);
    assert_eq!(server.await.expect("no surprise"), b"", "the client must say nothing more");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    for mode in ["require", "verify-full"] {
        let (url, server) = serve(|mut server| async move {
            assert_eq!(&server.startup().await[..], &80_877_103_u32.to_be_bytes(), "SSLRequest");
            server.send(b"N").await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}{mode}")).await;
        assert!(matches!(error, Error::TlsNotOffered { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Stop);
        assert_eq!(server.await.expect("no surprise"), b"", "no password, not even a name");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_taken_where_tls_is_preferred() {
    let (url, _server) = serve(|mut server| async move {
        server.startup().await;
        server.send(b"N").await;
        let startup = server.startup().await;
        assert!(startup.windows(21).any(|window| window == b"replication\0database\0"), "{startup:?}");
        server.send(&[authentication(0, b""), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let client = connect(&format!("{url}prefer")).await.expect("a welcome");
    assert!(!client.is_encrypted());
}

#[tokio::test]
async fn an_error_in_the_place_of_tls_is_not_believed() {
    let (url, _server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&message(b'E', b"SFATAL\0Mgive me your password\0\0")).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}prefer")).await;
    assert!(!error.to_string().contains("password"), "{error}");
}

#[tokio::test]
async fn an_iteration_count_that_would_burn_the_client_is_refused() {
    let (url, server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&authentication(10, b"SCRAM-SHA-256\0\0")).await;
        let (tag, response) = server.message().await;
        assert_eq!(tag, b'p');
        let nonce = response.windows(2).position(|window| window == b"r=").expect("a nonce");
        let first = [&response[nonce..], b"more,s=QSXCR+Q6sek8bf92,i=2000000000"].concat();
        server.send(&authentication(11, &first)).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}disable")).await;
    assert!(matches!(error, Error::Authentication { .. }) && error.to_string().contains("2000000000"), "{error}");
    assert_eq!(server.await.expect("no surprise"), b"", "no proof is given");
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_refused() {
    for (kind, data) in [(0, &b""[..]), (12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")] {
        let (url, _server) = serve(move |mut server| async move {
            server.startup().await;
            server.send(&authentication(10, b"SCRAM-SHA-256\0\0")).await;
            let (_, response) = server.message().await;
            let nonce = response.windows(2).position(|window| window == b"r=").expect("a nonce");
            let first = [&response[nonce..], b"more,s=QSXCR+Q6sek8bf92,i=4096"].concat();
            server.send(&authentication(11, &first)).await;
            server.message().await;
            server.send(&[authentication(kind, data), authentication(0, b""), ready()].concat()).await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}disable")).await;
        assert!(matches!(error, Error::Authentication { .. } | Error::Protocol { .. }), "{error}");
        assert_eq!(error.action(), Recovery::Stop);
    }
}

#[tokio::test]
async fn what_the_url_does_not_accept_is_not_answered() {
    let offers = [
        ("require_auth=scram-sha-256", authentication(0, b"")),
        ("require_auth=scram-sha-256", authentication(3, b"")),
        ("require_auth=!md5", authentication(5, b"salt")),
        ("require_auth=none", authentication(10, b"SCRAM-SHA-256\0\0")),
        // Channel binding can only be offered under TLS.
        ("channel_binding=prefer", authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")),
        ("channel_binding=prefer", authentication(7, b"")),
        ("channel_binding=prefer", authentication(10, b"OAUTHBEARER\0\0")),
    ];
    for (parameter, offer) in offers {
        let (url, server) = serve(move |mut server| async move {
            server.startup().await;
            server.send(&offer).await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}disable&{parameter}")).await;
        assert!(matches!(error, Error::Authentication { .. } | Error::Unbound { .. }), "{parameter}: {error}");
        assert_eq!(server.await.expect("no surprise"), b"", "{parameter}");
    }
}

#[tokio::test]
async fn what_is_announced_at_the_start_is_bounded() {
    for length in [0_i32, 3, -1, i32::MIN, i32::MAX, 65_541] {
        let (url, _server) = serve(move |mut server| async move {
            server.startup().await;
            server.send(&[&b"R"[..], &length.to_be_bytes()].concat()).await;
            server.rest().await
        })
        .await;
        let error = refused(&format!("{url}disable")).await;
        assert!(matches!(error, Error::Protocol { .. }), "{length}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let (url, _server) = serve(|mut server| async move { server.rest().await }).await;
    let error = refused(&format!("{url}disable&connect_timeout=1")).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.action(), Recovery::Reconnect);
}

#[tokio::test]
async fn a_pooler_that_changes_the_session_is_found_out() {
    let (url, _server) = serve(|mut server| async move {
        server.startup().await;
        server.send(&[authentication(0, b""), message(b'S', b"DateStyle\0German, DMY\0"), ready()].concat()).await;
        server.rest().await
    })
    .await;
    let error = refused(&format!("{url}disable")).await;
    assert!(error.to_string().contains("DateStyle"), "{error}");
}
