//! The client over HTTPS, against a server whose certificate the test's own authority has signed.

use std::io::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use registry::{Action, Auth, ErrorKind, RegistryClient, RegistryOptions, SchemaId};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Server {
    port: u16,
    ca_certificate: tempfile::NamedTempFile,
}

/// Answers every request with an id, over TLS with a certificate for 127.0.0.1.
async fn start() -> Server {
    start_until(2100).await
}

/// The same with a certificate that is not valid any more from this year on.
async fn start_until(year: i32) -> Server {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("an address is a name");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
    let certificate = params.signed_by(&key, &authority).expect("a certificate");

    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("the key belongs to the certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("the listener is bound").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut buffer = vec![0; 64 << 10];
            if stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{\"id\": 4}";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let mut ca_certificate = tempfile::NamedTempFile::new().expect("a file");
    ca_certificate.write_all(authority.pem().as_bytes()).expect("the file takes it");
    Server { port, ca_certificate }
}

fn client(server: &Server, host: &str, trusts: bool) -> RegistryClient {
    let url = format!("https://{host}:{}", server.port).parse().expect("a URL");
    let ca_certificate = trusts.then(|| server.ca_certificate.path().to_owned());
    RegistryClient::new(RegistryOptions { ca_certificate, ..RegistryOptions::new(url) }).expect("the options are sound")
}

#[tokio::test]
async fn a_server_of_a_named_authority_is_trusted() {
    let server = start().await;
    let id = client(&server, "127.0.0.1", true).register("s", "\"int\"").await.expect("the authority is named");
    assert_eq!(id, SchemaId::new(4));
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_told_by_what_is_wrong_and_hears_no_secret() {
    let (server, other, expired) = (start().await, start().await, start_until(2021).await);
    let url = format!("https://127.0.0.1:{}", server.port).parse().expect("a URL");
    let ca_certificate = Some(other.ca_certificate.path().to_owned());
    let unknown = RegistryClient::new(RegistryOptions {
        ca_certificate,
        auth: Auth::Bearer("hunter2".into()),
        ..RegistryOptions::new(url)
    })
    .expect("the options are sound");
    for (client, fix) in [
        (unknown, "no authority that is trusted"),
        (client(&server, "localhost", true), "made out to another host"),
        (client(&expired, "127.0.0.1", true), "has expired"),
    ] {
        let error = client.register("s", "\"int\"").await.expect_err("the certificate is not trusted");
        assert_eq!((error.kind(), error.action()), (ErrorKind::Tls, Action::Stop), "{error}");
        let text = error.to_string();
        assert!(text.contains("certificate") && text.contains(fix) && !text.contains("hunter2"), "{error}");
        let error = client.answers().await.expect_err("what is not trusted is no registry");
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    }
}

#[tokio::test]
async fn https_to_a_server_of_plain_http_stops() {
    let server = wiremock::MockServer::start().await;
    let trusted = start().await;
    let url = server.uri().replace("http://", "https://").parse().expect("a URL");
    let ca_certificate = Some(trusted.ca_certificate.path().to_owned());
    let client = RegistryClient::new(RegistryOptions { ca_certificate, ..RegistryOptions::new(url) })
        .expect("the options are sound");
    let error = client.ping().await.expect_err("the server speaks no TLS");
    assert_eq!((error.kind(), error.action()), (ErrorKind::Tls, Action::Stop), "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}
