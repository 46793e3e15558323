//! TLS as `sslmode` asks for it, on rustls with ring.
//!
//! The handshake's signature is verified in every mode, so that the peer has the key of the certificate that it shows,
//! and channel binding means what it says even where nobody vouches for the certificate.

use std::{fmt::Display, fs, path::Path, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::{
    Certificate,
    der::{Decode, asn1::ObjectIdentifier},
    spki::AlgorithmIdentifierOwned,
};

use crate::{ConnectOptions, Error, Host, RootCertificates, SslMode};

/// How to encrypt a connection.
#[derive(Debug, Clone)]
pub(crate) struct TlsSettings {
    /// Verifies the server as `sslmode` asks, and shows the client's certificate. It brings its own cryptography
    /// (ring): nothing has to be installed for the process.
    pub(crate) config: ClientConfig,
    /// Whether a server without TLS must be refused.
    pub(crate) required: bool,
}

impl ConnectOptions {
    /// How to encrypt; `None` for a connection that never is: over a Unix socket, or with `sslmode=disable`. Reads the
    /// files that the URL names.
    pub(crate) fn tls(&self) -> Result<Option<TlsSettings>, Error> {
        if self.exposes_password() {
            return Err(Error::PlaintextCredentials { server: self.server(), ssl_mode: self.ssl_mode });
        }
        if self.ssl_mode == SslMode::Disable || matches!(self.host, Host::Unix(_)) {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::options("sslmode", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let config = match &self.client_certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain = read_certificates("sslcert", &files.certificate)?;
                let key = PrivateKeyDer::from_pem_slice(&read("sslkey", &files.key)?)
                    .map_err(|error| unusable("sslkey", &files.key, error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| unusable("sslkey", &files.key, error))?
            }
        };
        Ok(Some(TlsSettings { config, required: !self.takes_plaintext() }))
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        match (self.ssl_mode, &self.root_certificates) {
            (SslMode::Disable | SslMode::Prefer | SslMode::Require, None) => {
                Ok(Arc::new(AnyName { trusted: None, provider }))
            }
            (SslMode::VerifyFull, roots) => {
                let (roots, parameter) = match roots {
                    Some(RootCertificates::File(path)) => (read_roots(path)?, "sslrootcert"),
                    _ => (system_roots()?, "sslmode"),
                };
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| Error::options(parameter, error.to_string()))?;
                Ok(verifier)
            }
            (_, Some(RootCertificates::File(path))) => {
                Ok(Arc::new(AnyName { trusted: Some(read_roots(path)?), provider }))
            }
            (_, _) => Err(Error::options("sslrootcert", "missing: name the PEM file of the authority to trust")),
        }
    }
}

/// What an operator can do about a handshake that failed; empty where that is not known.
pub(crate) fn hint(error: &std::io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>()) else {
        return "";
    };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "; no authority in sslrootcert vouches for the certificate: name the file of the one that does"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "; the certificate is not made out to this host: connect by a name in its subjectAltName (its common name does not \
             count), or accept any name with sslmode=verify-ca"
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "; the certificate has expired: renew it on the server"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            "; the certificate is not valid yet: set the clock of this machine right, or renew the certificate on the server"
        }
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
            "; the server does not accept the client's certificate: name one in sslcert and sslkey that an authority in the server's \
             ssl_ca_file has signed and that has not expired"
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(_)) => {
            "; a certificate that is its own authority is not accepted: let an authority sign one for the server"
        }
        _ => "",
    }
}

/// Whether a connection has failed since the server refuses the client's certificate. Under TLS 1.3 it says so when the client takes the handshake for
/// done.
pub(crate) fn is_client_refused(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert))
}

/// Whether the certificate that was shown, or not shown, is what the alert is about. Source: RFC 8446, section 6.2.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            // Its authority has the name of one that is trusted, and another key.
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

/// The hash of the server's certificate that SCRAM is bound to, `tls-server-end-point` (RFC 5929, section 4.1): made
/// with the hash of the certificate's own signature, where MD5 and SHA-1 become SHA-256. `None` for a signature that
/// has no such hash, as Ed25519's: no channel binding is defined then, and PostgreSQL has none either.
pub(crate) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = parsed.signature_algorithm();
    let hash = if algorithm.oid == RSASSA_PSS { pss_hash(algorithm)? } else { algorithm.oid };
    if SIGNED_WITH_SHA256_OR_WEAKER.contains(&hash) {
        Some(Sha256::digest(certificate).to_vec())
    } else if SIGNED_WITH_SHA384.contains(&hash) {
        Some(Sha384::digest(certificate).to_vec())
    } else if SIGNED_WITH_SHA512.contains(&hash) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

/// id-RSASSA-PSS (RFC 8017), whose hash is in its parameters.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// id-sha1 (RFC 8017).
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");

/// MD5 and SHA-1 with RSA, SHA-1 with ECDSA, SHA-1; SHA-256 with RSA, with ECDSA, with DSA, and alone.
const SIGNED_WITH_SHA256_OR_WEAKER: [ObjectIdentifier; 8] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
    SHA1,
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.2"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
];
/// SHA-384 with RSA, with ECDSA, and alone.
const SIGNED_WITH_SHA384: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
];
/// SHA-512 with RSA, with ECDSA, and alone.
const SIGNED_WITH_SHA512: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
];

/// The hash in `RSASSA-PSS-params` (RFC 8017, appendix A.2.3): a sequence whose first element, `[0] HashAlgorithm`, is
/// SHA-1 when it is left out. Each length fits in one byte, for an algorithm's name is short.
fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<ObjectIdentifier> {
    let parameters = algorithm.parameters.as_ref()?.value();
    match parameters {
        [0xa0, _, 0x30, _, 0x06, length @ ..0x80, rest @ ..] => {
            ObjectIdentifier::from_bytes(rest.get(..usize::from(*length))?).ok()
        }
        [0xa0, ..] => None,
        _ => Some(SHA1),
    }
}

/// Takes a certificate whatever name it is made out to. What is verified in any case is that the peer has its key.
#[derive(Debug)]
struct AnyName {
    /// The authorities of libpq's `verify-ca`; none takes any certificate, which is encryption alone: libpq's `prefer` and `require`
    /// without `sslrootcert`.
    trusted: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(trusted) = &self.trusted {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, trusted, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("sslrootcert", path)? {
        roots.add(certificate).map_err(|error| unusable("sslrootcert", path, error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let problem = "the operating system has no trusted authorities: install its package of CA certificates, or name a PEM file";
        return Err(Error::options("sslrootcert", problem));
    }
    Ok(roots)
}

fn read_certificates(parameter: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(parameter, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(parameter, path, "holds no certificate in PEM form"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(parameter, path, error)),
    }
}

fn read(parameter: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(parameter, path, error))
}

fn unusable(parameter: &'static str, path: &Path, problem: impl Display) -> Error {
    Error::CertificateFile { parameter, path: path.to_owned(), problem: format!("{problem}") }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write};

    use super::*;

    #[test]
    fn a_certificate_is_hashed_as_openssl_does() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
        let expected: BTreeMap<&str, &str> = include_str!("../tests/certificates/end_points.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(expected.len(), 12);
        for (name, hash) in expected {
            let path = folder.join(name).with_extension("pem");
            let certificates = read_certificates("sslrootcert", &path).expect("a certificate");
            let found = server_end_point(&certificates[0]).map_or_else(
                || "none".to_owned(),
                |bytes| {
                    bytes.iter().fold(String::new(), |mut text, byte| {
                        let _ = write!(text, "{byte:02x}");
                        text
                    })
                },
            );
            assert_eq!(found, hash, "{name}");
        }
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates/end_points.txt");
        let error = read_roots(&path).expect_err("a text file");
        assert!(error.to_string().contains("end_points.txt") && error.to_string().contains("sslrootcert"), "{error}");
        assert!(read_roots(Path::new("/nowhere.pem")).is_err());
    }

    #[test]
    fn parameters_of_a_signature_that_are_cut_short_have_no_hash() {
        let pss = |parameters: &[u8]| AlgorithmIdentifierOwned {
            oid: RSASSA_PSS,
            parameters: Some(x509_cert::der::Any::new(x509_cert::der::Tag::Sequence, parameters).expect("short")),
        };
        let whole = [0xa0, 15, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0];
        assert_eq!(pss_hash(&pss(&whole)), Some(SIGNED_WITH_SHA256_OR_WEAKER[7]));
        for end in 1..15 {
            assert_eq!(pss_hash(&pss(&whole[..end])), None, "{end}");
        }
        assert_eq!(pss_hash(&pss(&[])), Some(SHA1), "left out");
    }
}
