//! Who is who: TLS, channel binding and the ways to authenticate, with a real PostgreSQL of the test's own.

mod support;

use std::{fs, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use support::{PATIENCE, PrivateServer, Source, Tally, connect, sql, value};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use walreceiver::{ConnectOptions, Error, Recovery, ReplicationClient, SslMode, StreamSettings};

/// An authority that signs with one algorithm, and so decides the hash for channel binding.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        Self::named("test authority", algorithm)
    }

    fn named(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        self.sign_until(2100, name, usage)
    }

    /// The same, with a year in which it is not valid any more.
    fn sign_until(&self, year: i32, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// A server with TLS, whose certificate is made out to `localhost`, and a client's files in a folder.
struct Setup {
    server: PrivateServer,
    files: TempDir,
}

impl Setup {
    fn new(authority: &Authority, access: &str) -> Self {
        Self::with(authority, authority.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth), access)
    }

    /// The same with this certificate and its key.
    fn with(authority: &Authority, (certificate, key): (String, String), access: &str) -> Self {
        let settings = "ssl = on\nssl_cert_file = 'own.pem'\nssl_key_file = 'own.key'\nssl_ca_file = 'ca.pem'";
        let files = [("own.pem", certificate.as_str()), ("own.key", key.as_str()), ("ca.pem", authority.pem.as_str())];
        let setup =
            Self { server: PrivateServer::start(settings, access, &files), files: TempDir::new().expect("a folder") };
        setup.file("ca.pem", &authority.pem);
        setup
    }

    /// Writes a file for the client; its path.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// A URL with the authority's file.
    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        let roots = self.files.path().join("ca.pem");
        self.server.tcp_url(user, host, &format!("sslrootcert={}&{parameters}", roots.display()))
    }

    async fn execute(&self, statements: &str) {
        sql(&self.server.socket_url()).await.batch_execute(statements).await.expect("valid SQL");
    }
}

#[track_caller]
fn tls_refused(outcome: Result<ReplicationClient, Error>, words: &str) {
    let error = outcome.err().expect("this server must not be taken");
    assert!(matches!(error, Error::Tls { .. }) && error.to_string().contains(words), "{error}");
    assert!(error.action() == Recovery::Stop && error.is_untrusted(), "{error}");
}

#[tokio::test]
async fn each_sslmode_verifies_what_it_says() {
    let setup = Setup::new(&Authority::new(&PKCS_ECDSA_P256_SHA256), "hostssl all all all trust");
    let stranger = setup.file("stranger.pem", &Authority::new(&PKCS_ECDSA_P256_SHA256).pem);
    let nobody = |host: &str, mode: &str| setup.server.tcp_url("postgres", host, &format!("sslmode={mode}"));
    let other = |host: &str, mode: &str| format!("{}&sslrootcert={stranger}", nobody(host, mode));
    let ours = |host: &str, mode: &str| setup.url("postgres", host, &format!("sslmode={mode}"));

    for url in [
        ours("localhost", "verify-full"),
        ours("127.0.0.1", "verify-ca"),
        ours("127.0.0.1", "require"),
        ours("127.0.0.1", "prefer"),
        nobody("127.0.0.1", "require"),
        nobody("127.0.0.1", "prefer"),
    ] {
        let client = connect(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(client.is_encrypted(), "{url}");
    }
    tls_refused(connect(&ours("127.0.0.1", "verify-full")).await, "not made out to this host");
    tls_refused(connect(&other("localhost", "verify-full")).await, "no authority in sslrootcert");
    tls_refused(connect(&other("localhost", "verify-ca")).await, "no authority in sslrootcert");
    tls_refused(connect(&other("localhost", "require")).await, "no authority in sslrootcert");
    // The operating system's authorities did not sign it either.
    tls_refused(connect(&nobody("localhost", "verify-full")).await, "");

    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let expired = authority.sign_until(2021, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let expired = Setup::with(&authority, expired, "hostssl all all all trust");
    for mode in ["verify-full", "verify-ca"] {
        tls_refused(connect(&expired.url("postgres", "localhost", &format!("sslmode={mode}"))).await, "has expired");
    }

    let error = connect(&nobody("localhost", "disable")).await.err().expect("pg_hba.conf has hostssl only");
    assert_eq!((error.sqlstate(), error.action()), (Some("28000"), Recovery::Stop), "{error}");
}

#[tokio::test]
async fn prefer_goes_on_without_tls_where_tls_does_not_work() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let setup = Setup::new(&authority, "hostnossl all all all trust");
    let stranger = setup.file("stranger.pem", &Authority::new(&PKCS_ECDSA_P256_SHA256).pem);
    for roots in [setup.file("ca.pem", &authority.pem), stranger] {
        let url = setup.server.tcp_url("postgres", "localhost", &format!("sslmode=prefer&sslrootcert={roots}"));
        assert!(!connect(&url).await.expect("a welcome").is_encrypted());
    }
    assert!(connect(&setup.url("postgres", "localhost", "sslmode=require")).await.is_err());
}

/// Linux takes this for 127.0.0.1, and for whoever reads the URL it is no loopback address.
const ELSEWHERE: &str = "0.0.0.0";

#[tokio::test]
async fn a_password_does_not_leave_the_machine_without_tls() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let without_tls = PrivateServer::start("", "host all all all scram-sha-256", &[]);
    // It would let ann in if she tried again without TLS, as `prefer` does.
    let access = "hostnossl all ann all scram-sha-256\nhostssl all bob all scram-sha-256\nhost all postgres all trust";
    let tempting = Setup::new(&authority, access);
    for server in [&without_tls, &tempting.server] {
        let sql = sql(&server.socket_url()).await;
        sql.batch_execute("CREATE ROLE ann LOGIN REPLICATION PASSWORD 'secret'").await.expect("valid SQL");
        for mode in ["prefer", "disable"] {
            let url = |host: &str| server.tcp_url("ann:secret", host, &format!("sslmode={mode}"));
            let error = connect(&url(ELSEWHERE)).await.err().expect("refused");
            let is_told = match (&error, mode) {
                (Error::PlaintextCredentials { .. }, _) => true,
                // The server has TLS, and no line for it.
                (Error::Server { .. }, "prefer") => std::ptr::eq(server, &raw const tempting.server),
                _ => false,
            };
            assert!(is_told && error.action() == Recovery::Stop, "{mode}: {error}");
            let client = connect(&url("127.0.0.1")).await.expect("nothing leaves the machine");
            assert!(!client.is_encrypted());
            let options: ConnectOptions = url(ELSEWHERE).parse().expect("a URL");
            let allowed = options.with_plaintext_credentials(true);
            let client = ReplicationClient::connect(&allowed).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
            assert!(!client.is_encrypted());
        }
    }
    // With TLS it goes wherever it is told to, and where there is no password there is none to lose.
    tempting.execute("CREATE ROLE bob LOGIN REPLICATION PASSWORD 'secret'").await;
    let url = tempting.server.tcp_url("bob:secret", ELSEWHERE, "sslmode=prefer");
    assert!(connect(&url).await.expect("a welcome").is_encrypted());
    connect(&tempting.server.tcp_url("postgres", ELSEWHERE, "sslmode=disable")).await.expect("a welcome");
}

#[tokio::test]
async fn nobody_gets_in_between_unnoticed() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let setup = Setup::new(&authority, "hostssl all all all scram-sha-256");
    setup.execute("CREATE ROLE ann LOGIN REPLICATION PASSWORD 'secret'").await;
    // Without sslrootcert anybody's certificate is taken, so that nothing but channel binding tells one from the other.
    let url = |port: u16, binding: &str| {
        format!("postgres://ann:secret@localhost:{port}/postgres?sslmode=require&channel_binding={binding}")
    };
    let between = |cuts_offer| Between::sit(&authority, setup.server.port(), cuts_offer);

    // Who hands everything on is told by the certificate, which is another one than the server's.
    for binding in ["prefer", "require"] {
        let error = connect(&url(between(false).await.port, binding)).await.err().expect("the server refuses");
        assert!(matches!(error, Error::Unbound { .. }) && error.is_untrusted(), "{binding}: {error}");
    }
    // Who cuts the offer of channel binding out is told by the server, for the client says that it could have; or never gets so far.
    let error = connect(&url(between(true).await.port, "prefer")).await.err().expect("the server refuses");
    assert!(matches!(error, Error::Unbound { .. }) && error.to_string().contains("the server finds"), "{error}");
    let refusing = between(true).await;
    let error = connect(&url(refusing.port, "require")).await.err().expect("the client refuses");
    assert!(matches!(error, Error::Unbound { .. }) && error.is_untrusted(), "{error}");
    assert_eq!(refusing.heard.await.expect("it has ended"), 0, "nothing of the password is said");
    // That the attack is one shows where nobody minds.
    for cuts_offer in [false, true] {
        connect(&url(between(cuts_offer).await.port, "disable")).await.expect("nobody notices");
    }
}

/// Somebody between a client and a server, who ends the TLS of both.
struct Between {
    port: u16,
    /// How many bytes the client has said behind its startup message.
    heard: JoinHandle<u64>,
}

impl Between {
    async fn sit(authority: &Authority, server_port: u16, cuts_offer: bool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let stranger = Authority::new(&PKCS_ECDSA_P256_SHA256);
        let (certificate, key) = stranger.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let to_client = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a key of its certificate");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate"))
            .expect("an authority");
        let to_server = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let heard = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            client.read_exact(&mut [0; 8]).await.expect("a request for TLS");
            client.write_all(b"S").await.expect("a client that listens");
            let mut client = TlsAcceptor::from(Arc::new(to_client)).accept(client).await.expect("a handshake");

            let mut server = TcpStream::connect(("127.0.0.1", server_port)).await.expect("a server");
            server.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.expect("a server that listens");
            assert_eq!(server.read_u8().await.expect("an answer"), b'S');
            let name = "localhost".try_into().expect("a name");
            let mut server = TlsConnector::from(Arc::new(to_server)).connect(name, server).await.expect("a handshake");

            let length = client.read_u32().await.expect("a startup message");
            let mut startup = vec![0; length as usize - 4];
            client.read_exact(&mut startup).await.expect("all of it");
            server.write_all(&[&length.to_be_bytes()[..], &startup].concat()).await.expect("a server that listens");
            assert_eq!(server.read_u8().await.expect("a request to authenticate"), b'R');
            let length = server.read_u32().await.expect("its length");
            let mut request = vec![0; length as usize - 4];
            server.read_exact(&mut request).await.expect("all of it");
            assert_eq!(&request[4..], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", "what a server offers");
            if cuts_offer {
                request.drain(4..4 + b"SCRAM-SHA-256-PLUS\0".len());
            }
            let length = u32::try_from(request.len() + 4).expect("short").to_be_bytes();
            client.write_all(&[&b"R"[..], &length, &request].concat()).await.expect("a client that listens");
            // Either of them may hang up as it likes.
            let (mut from_client, mut to_client) = tokio::io::split(client);
            let (mut from_server, mut to_server) = tokio::io::split(server);
            let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let mut heard = 0;
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                heard += count as u64;
                if to_server.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
            back.abort();
            heard
        });
        Self { port, heard }
    }
}

#[tokio::test]
async fn authentication_is_bound_to_the_certificate_whatever_its_hash() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let setup = Setup::new(&Authority::new(algorithm), "hostssl all all all scram-sha-256\nhost all all all trust");
        setup.execute("CREATE ROLE ann LOGIN REPLICATION PASSWORD 'secret'").await;
        for parameters in ["channel_binding=require", "channel_binding=prefer", "channel_binding=disable"] {
            let url = setup.url("ann:secret", "localhost", &format!("sslmode=verify-full&{parameters}"));
            connect(&url).await.unwrap_or_else(|error| panic!("{parameters}: {error}"));
        }
        // Without encryption this server asks for nothing: that is no way around.
        let parameters = "sslmode=prefer&channel_binding=require";
        let error = connect(&setup.server.tcp_url("ann:wrong", "localhost", parameters)).await.err().expect("refused");
        assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_without_a_hash_binds_nothing() {
    let setup = Setup::new(&Authority::new(&PKCS_ED25519), "hostssl all all all scram-sha-256");
    setup.execute("CREATE ROLE ann LOGIN REPLICATION PASSWORD 'secret'").await;
    connect(&setup.url("ann:secret", "localhost", "sslmode=verify-full")).await.expect("a welcome");
    let url = setup.url("ann:secret", "localhost", "sslmode=verify-full&channel_binding=require");
    let error = connect(&url).await.err().expect("refused");
    assert!(matches!(error, Error::Unbound { .. }) && error.to_string().contains("Ed25519"), "{error}");
}

#[tokio::test]
async fn a_server_that_asks_for_too_little_is_refused_with_channel_binding() {
    let access = "hostssl all trusted all trust\nhostssl all plain all password\nhostssl all old all md5";
    let setup = Setup::new(&Authority::new(&PKCS_ECDSA_P256_SHA256), access);
    setup
        .execute(
            "CREATE ROLE trusted LOGIN REPLICATION; CREATE ROLE plain LOGIN REPLICATION PASSWORD 'secret';
             SET password_encryption = 'md5'; CREATE ROLE old LOGIN REPLICATION PASSWORD 'secret'",
        )
        .await;
    for user in ["trusted", "plain", "old"] {
        let url = |parameters: &str| setup.url(&format!("{user}:secret"), "localhost", parameters);
        connect(&url("sslmode=verify-full")).await.unwrap_or_else(|error| panic!("{user}: {error}"));
        for parameters in ["channel_binding=require", "require_auth=scram-sha-256"] {
            let error = connect(&url(&format!("sslmode=verify-full&{parameters}"))).await.err().expect("refused");
            let is_told = match parameters {
                "channel_binding=require" => matches!(error, Error::Unbound { .. }) && error.is_untrusted(),
                _ => matches!(error, Error::Authentication { .. }),
            };
            assert!(is_told && error.action() == Recovery::Stop, "{user}, {parameters}: {error}");
        }
    }
}

#[tokio::test]
async fn a_client_can_have_a_certificate() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let setup = Setup::new(&authority, "hostssl all all all cert");
    setup.execute("CREATE ROLE ann LOGIN REPLICATION").await;
    let (certificate, key) = authority.sign("ann", ExtendedKeyUsagePurpose::ClientAuth);
    let (certificate, key) = (setup.file("ann.pem", &certificate), setup.file("ann.key", &key));
    let url = setup.url("ann", "localhost", "sslmode=verify-full");
    connect(&format!("{url}&sslcert={certificate}&sslkey={key}")).await.expect("a welcome");
    assert!(connect(&url).await.is_err(), "without it");
    let stranger = Authority::named("another authority", &PKCS_ECDSA_P256_SHA256);
    let namesake = Authority::new(&PKCS_ECDSA_P256_SHA256);
    for (other, other_key) in [
        stranger.sign("ann", ExtendedKeyUsagePurpose::ClientAuth),
        namesake.sign("ann", ExtendedKeyUsagePurpose::ClientAuth),
        authority.sign_until(2021, "ann", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let (other, other_key) = (setup.file("other.pem", &other), setup.file("other.key", &other_key));
        tls_refused(
            connect(&format!("{url}&sslcert={other}&sslkey={other_key}")).await,
            "does not accept the client's",
        );
    }
    let error = connect(&format!("{url}&sslcert={key}&sslkey={key}")).await.err().expect("that is no certificate");
    assert!(matches!(error, Error::CertificateFile { parameter: "sslcert", .. }), "{error}");
}

#[tokio::test]
async fn a_stream_is_whole_under_tls_and_other_connections_verify_alike() {
    let setup = Setup::new(&Authority::new(&PKCS_ECDSA_P256_SHA256), "hostssl all all all trust");
    let source = Source::new(&setup.server.socket_url(), "encrypted", "id bigint PRIMARY KEY, body text").await;
    source.execute("INSERT INTO TABLE_NAME SELECT n, md5(n::text) FROM generate_series(1, 100000) n").await;
    let url = setup.url("postgres", "localhost", "sslmode=verify-full&options=-c%20wal_sender_timeout%3D2s");
    let (mut reader, feedback) =
        source.try_stream(&url, pgoutput::Lsn::INVALID, StreamSettings::default()).await.expect("a stream");
    let query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert_eq!(value(&source.sql, query).await.as_deref(), Some("t"));
    let mut tally = Tally::default();
    tally.read_rows(&mut reader, 100_000).await;
    while !tally.idle {
        tally.read(&mut reader).await.expect("an empty chunk, or a keepalive");
    }
    source.execute("INSERT INTO TABLE_NAME VALUES (0, 'last')").await;
    tally.read_rows(&mut reader, 100_001).await;
    feedback.advance(tally.committed).expect("received");
    reader.shutdown(PATIENCE).await.expect("a good end");
    assert_eq!(source.slot_column("confirmed_flush_lsn").await, Some(tally.committed.to_string()));

    let options: ConnectOptions = url.parse().expect("a URL");
    assert_eq!(options.ssl_mode(), SslMode::VerifyFull);
    let socket = options.connect_sql(&[("search_path", "pg_catalog")]).await.expect("a connection that verifies alike");
    let mut config = tokio_postgres::Config::new();
    config.user("whoever").ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect_raw(socket, tokio_postgres::NoTls).await.expect("it is authenticated");
    tokio::spawn(connection);
    let query =
        "SELECT ssl || current_user || current_setting('search_path') FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(value(&client, query).await.as_deref(), Some("truepostgrespg_catalog"));
    let elsewhere: ConnectOptions = url.replace("localhost", "127.0.0.1").parse().expect("a URL");
    assert!(elsewhere.connect_sql(&[]).await.is_err(), "the name is verified there too");
}
