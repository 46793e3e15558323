//! What is in the way between this program and Kafka, where more can be told than that time was up.
//!
//! It is asked over connections of its own. Behind a call that has failed, it can be wrong about that call: another broker may have been the reason. So nothing
//! that has streamed is stopped for what is found there.

use std::time::Duration;

use publisher::Cause;
use tokio::task::spawn_blocking;
use walreceiver::is_loopback;

use super::kafka_settings;
use crate::{
    config::{Config, has_sasl_without_tls},
    failure::{Code, Failure},
};

/// How long the brokers are listened to.
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks at the brokers before anything else is done with them: whether they are to be trusted, let this client in, and send it to where its credentials
/// may go. A transactional producer would hear nothing of the first two until its time is up, and take the third as it comes. Brokers that do not
/// answer are left to whoever needs them.
///
/// librdkafka goes where brokers send it as soon as it has heard of it, so that the third is found out when it has happened: it ends there.
///
/// # Errors
/// They are not, or do not.
pub async fn look_at_kafka(config: &Config) -> Result<(), Failure> {
    match diagnose(config).await {
        Some(Ok(hosts)) => {
            let must_stay = has_sasl_without_tls(&config.kafka.properties) && !config.kafka.allow_plaintext_credentials;
            let elsewhere = hosts.iter().find(|host| must_stay && !is_loopback(host));
            elsewhere.map_or(Ok(()), |host| Err(exposed(host)))
        }
        Some(Err(Some(Cause::Untrusted { found, fix }))) => Err(untrusted(&found, fix)),
        Some(Err(Some(Cause::Denied { found }))) => Err(Failure::new(Code::KafkaDenied, found)),
        Some(Err(Some(Cause::Unreachable { .. }) | None)) | None => Ok(()),
    }
}

/// The failure, or what is behind it if it is that Kafka could not be reached. Credentials that are refused are refused again, unless they were
/// `accepted` before.
pub(super) async fn explain(config: &Config, failure: Failure, accepted: bool) -> Failure {
    if failure.code() != Code::KafkaUnavailable {
        return failure;
    }
    match diagnose(config).await {
        Some(Err(Some(Cause::Untrusted { found, fix }))) => untrusted(&found, fix),
        Some(Err(Some(Cause::Denied { found }))) if accepted => Failure::new(Code::KafkaUnavailable, found),
        Some(Err(Some(Cause::Denied { found }))) => Failure::new(Code::KafkaDenied, found),
        _ => failure,
    }
}

/// None where a connection is all that there is to it.
async fn diagnose(config: &Config) -> Option<Result<Vec<String>, Option<Cause>>> {
    let settings = kafka_settings(config);
    if !settings.proves_something() {
        return None;
    }
    spawn_blocking(move || settings.diagnose(PATIENCE)).await.ok()
}

fn untrusted(found: &str, fix: &str) -> Failure {
    Failure::new(Code::KafkaUntrusted, format!("{found}; {fix}"))
}

fn exposed(host: &str) -> Failure {
    let found = format!(
        "the brokers send clients to {host} (advertised.listeners), and the SASL credentials go there without TLS; set \
         \"security.protocol\" = \"sasl_ssl\" in kafka.properties, and change the password"
    );
    Failure::new(Code::PlaintextCredentials, found)
}
