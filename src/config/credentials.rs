//! Credentials that would cross a network unencrypted: refused, unless the section allows it by name.
//!
//! What counts is what the configuration says. `localhost` and loopback addresses are this machine; any other name may be another one tomorrow.

use std::path::{Path, PathBuf};

use registry::Auth;
use url::{Host, Url};
use walreceiver::{ConnectOptions, is_loopback};

use super::keys::{self, Key};
use super::problem::Fault;
use super::properties::Properties;
use super::reader::{Noted, Reader, entry_path};

/// Passes the options on, unless they give the password away.
pub(super) fn check_postgres(reader: &mut Reader, options: ConnectOptions) -> Result<ConnectOptions, Noted> {
    let allowed = reader.required(&keys::POSTGRES_ALLOW_PLAINTEXT_CREDENTIALS)?;
    let options = options.with_plaintext_credentials(allowed);
    refuse_exposure(reader, options, &keys::POSTGRES_URL, "give sslmode=verify-full")
}

/// The same of those for the standby, which were made of the others and have the same leave.
pub(super) fn check_standby(reader: &mut Reader, options: ConnectOptions) -> Result<ConnectOptions, Noted> {
    refuse_exposure(reader, options, &keys::SNAPSHOT_STANDBY_HOST, "give sslmode=verify-full in postgres.url")
}

fn refuse_exposure(
    reader: &mut Reader,
    options: ConnectOptions,
    key: &Key,
    fix: &str,
) -> Result<ConnectOptions, Noted> {
    if options.exposes_password() {
        let found = format!("the password would go to {} without TLS (sslmode=disable)", options.server());
        return Err(reader.problem(key, refusal(found, fix, &keys::POSTGRES_ALLOW_PLAINTEXT_CREDENTIALS)));
    }
    Ok(options)
}

/// Whether SASL is spoken without TLS.
pub fn has_sasl_without_tls(properties: &Properties) -> bool {
    // librdkafka takes no broker whose `protocol://` is another.
    properties.get("security.protocol").is_some_and(|protocol| protocol.trim().eq_ignore_ascii_case("sasl_plaintext"))
}

/// Notes brokers to which what SASL proves would go without TLS, where that is not allowed. Where they send clients from there is known once one is asked.
pub(super) fn check_kafka(reader: &mut Reader, bootstrap_servers: &str, properties: &Properties) -> Result<(), Noted> {
    if !has_sasl_without_tls(properties) {
        return Ok(());
    }
    let Some(server) = bootstrap_servers.split(',').map(str::trim).find(|server| !is_loopback(broker_host(server)))
    else {
        return Ok(());
    };
    let found =
        format!("the SASL credentials would go to {server} without TLS (\"security.protocol\" is sasl_plaintext)");
    let fix = "set \"security.protocol\" = \"sasl_ssl\" in kafka.properties, with the port of an encrypted listener";
    let fault = refusal(found, fix, &keys::KAFKA_ALLOW_PLAINTEXT_CREDENTIALS);
    Err(reader.problem(&keys::KAFKA_BOOTSTRAP_SERVERS, fault))
}

/// Passes the file of a token on, if it goes with the properties, and notes what it lacks, or what lacks it.
pub(super) fn check_oauthbearer(
    reader: &mut Reader,
    properties: &Properties,
    file: Option<PathBuf>,
) -> Result<Option<PathBuf>, Noted> {
    const MECHANISMS: [&str; 2] = ["sasl.mechanisms", "sasl.mechanism"];
    let is_oauthbearer = |mechanism: &str| mechanism.trim().eq_ignore_ascii_case("OAUTHBEARER");
    let mechanism = MECHANISMS.iter().find_map(|name| properties.get(name));
    let protocol = properties.get("security.protocol").unwrap_or_default().trim().to_ascii_lowercase();
    let fault = match (&file, mechanism) {
        (Some(_), Some(mechanism)) if !is_oauthbearer(mechanism) => Fault::new(
            "\"sasl.mechanisms\" is another one",
            "give OAUTHBEARER there, or leave it out; or leave the file out",
        ),
        (Some(_), _) if !protocol.starts_with("sasl_") => Fault::new(
            "there is no SASL in \"security.protocol\"",
            "set \"security.protocol\" = \"sasl_ssl\" in kafka.properties",
        ),
        (None, Some(mechanism)) if is_oauthbearer(mechanism) && protocol.starts_with("sasl_") => {
            Fault::new("missing, and \"sasl.mechanisms\" is OAUTHBEARER", "give the file that holds the token")
        }
        (Some(path), _) => {
            reader.warn_if_public(keys::KAFKA_OAUTHBEARER_TOKEN_FILE.path, path);
            return Ok(file);
        }
        (None, _) => return Ok(None),
    };
    Err(reader.problem(&keys::KAFKA_OAUTHBEARER_TOKEN_FILE, fault))
}

/// Warns of private keys that everybody can read. They are read when a connection is made, so that one which is not there is told then.
pub(super) fn check_private_keys(reader: &mut Reader, postgres: Option<&ConnectOptions>, kafka: Option<&Properties>) {
    if let Some(key) = postgres.and_then(ConnectOptions::client_key) {
        reader.warn_if_public("postgres.url: sslkey", key);
    }
    for name in ["ssl.key.location", "ssl.keystore.location"] {
        if let Some(path) = kafka.and_then(|properties| properties.get(name)) {
            reader.warn_if_public(&entry_path(&keys::KAFKA_PROPERTIES, name), Path::new(path));
        }
    }
}

/// Notes that credentials would go to the registry without TLS, where that is not allowed.
pub(super) fn check_registry(reader: &mut Reader, url: &Url, auth: &Auth) -> Result<(), Noted> {
    let what = match auth {
        Auth::None => return Ok(()),
        Auth::Basic { .. } => "password",
        Auth::Bearer(_) => "token",
    };
    let is_this_machine = match url.host() {
        Some(Host::Domain(name)) => is_loopback(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    };
    if url.scheme() == "https" || is_this_machine {
        return Ok(());
    }
    let found = format!("the {what} would go to {} without TLS", url.host_str().unwrap_or_default());
    let fault = refusal(found, "give an https:// address", &keys::REGISTRY_ALLOW_PLAINTEXT_CREDENTIALS);
    Err(reader.problem(&keys::REGISTRY_URL, fault))
}

fn refusal(found: String, fix: &str, key: &Key) -> Fault {
    Fault::new(found, format!("{fix}; or, where nobody else is on the network, {} = true", key.path))
}

/// The host of `[protocol://]host[:port]`.
pub fn broker_host(server: &str) -> &str {
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => server,
    }
}

#[cfg(test)]
mod tests {
    use super::broker_host;

    #[test]
    fn the_host_of_a_server_is_found() {
        for (server, host) in
            [("a:9092", "a"), ("a", "a"), ("[::1]:9092", "[::1]"), ("[::1]", "[::1]"), ("PLAINTEXT://b:9092", "b")]
        {
            assert_eq!(broker_host(server), host, "{server}");
        }
    }
}
