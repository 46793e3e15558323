//! Who is who: TLS, channel binding and the ways to authenticate, with a real PostgreSQL of the test's own.

mod support;

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};
use support::{PATIENCE, PrivateServer, Source, Tally, connect, sql, value};
use tempfile::TempDir;
use walreceiver::{Error, Recovery, SslMode, StreamSettings};

/// An authority that signs with one algorithm, and so decides the hash for channel binding.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
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
        let (certificate, key) = authority.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth);
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
fn tls_refused(outcome: Result<walreceiver::ReplicationClient, Error>, words: &str) {
    let error = outcome.err().expect("this server must not be taken");
    assert!(matches!(error, Error::Tls { .. }) && error.to_string().contains(words), "{error}");
    assert_eq!(error.action(), Recovery::Stop);
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
    assert!(matches!(error, Error::Authentication { .. }) && error.to_string().contains("Ed25519"), "{error}");
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
            assert!(matches!(error, Error::Authentication { .. }), "{user}, {parameters}: {error}");
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

    let options: walreceiver::ConnectOptions = url.parse().expect("a URL");
    assert_eq!(options.ssl_mode(), SslMode::VerifyFull);
    let socket = options.connect_sql(&[("search_path", "pg_catalog")]).await.expect("a connection that verifies alike");
    let mut config = tokio_postgres::Config::new();
    config.user("whoever").ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect_raw(socket, tokio_postgres::NoTls).await.expect("it is authenticated");
    tokio::spawn(connection);
    let query =
        "SELECT ssl || current_user || current_setting('search_path') FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(value(&client, query).await.as_deref(), Some("truepostgrespg_catalog"));
    let elsewhere: walreceiver::ConnectOptions = url.replace("localhost", "127.0.0.1").parse().expect("a URL");
    assert!(elsewhere.connect_sql(&[]).await.is_err(), "the name is verified there too");
}
