//! The URL of PostgreSQL, taken apart once: where to connect to, and a secret.

use secrecy::ExposeSecret;
use walreceiver::ConnectOptions;

use super::document::Data;
use super::problem::Fault;
use super::values::FromData;

/// A `postgres://` URL by libpq's rules, see [`ConnectOptions`], whose `Debug` leaves out the password.
#[derive(Clone, Debug)]
pub(super) struct PostgresUrl(pub(super) ConnectOptions);

impl FromData for PostgresUrl {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        // None of the texts quotes what may be a password in a place where nobody looks for it.
        let options = secrecy::SecretString::from_data(data)?.expose_secret().parse();
        options.map(Self).map_err(|error: walreceiver::Error| {
            let fix = "give postgres://user:password@host:5432/database; characters such as @ / : ? in a user or password are \
                       percent-encoded, or the password goes in password_file";
            Fault::new(error.to_string(), fix)
        })
    }
}
