//! What the errors of the libraries mean for the stream.

use encoder::{EncodeError, PlanError};
use pgoutput::DecodeError;
use walreceiver::{Error, Recovery};

use crate::failure::{Code, Failure};

/// What an error of the replication connection means.
pub(crate) fn of_walreceiver(error: &Error) -> Failure {
    let code = match (error, error.action()) {
        (Error::PublicationMissing { .. }, _) => Code::PublicationMissing,
        (Error::FrameTooLarge { .. }, _) => Code::RowTooLarge,
        (Error::Protocol { .. } | Error::Frame { .. } | Error::ConfirmedBeyondReceived { .. }, _) => {
            Code::ProtocolViolation
        }
        (Error::PlaintextCredentials { .. }, _) => Code::PlaintextCredentials,
        (error, _) if error.is_untrusted() => Code::PostgresUntrusted,
        _ => match error.sqlstate() {
            // undefined_object: the slot that a command names.
            Some("42704") => Code::SlotMissing,
            // object_in_use
            Some("55006") => Code::SlotActive,
            // object_not_in_prerequisite_state: the slot was invalidated.
            Some("55000") => Code::SlotLost,
            _ => match error.action() {
                Recovery::Retry | Recovery::Reconnect => Code::PostgresUnavailable,
                Recovery::Stop => Code::PostgresRefused,
            },
        },
    };
    Failure::new(code, error.to_string())
}

/// What an error means that ends a stream which had started: what it does not find then is the publication, since the slot was found.
/// The text would not tell, for the server translates it.
pub(crate) fn of_stream(error: &Error) -> Failure {
    match error.sqlstate() {
        Some("42704") => Failure::new(Code::PublicationMissing, error.to_string()),
        _ => of_walreceiver(error),
    }
}

/// What bytes that are no message mean.
pub(crate) fn of_decode(error: &DecodeError) -> Failure {
    Failure::new(Code::ProtocolViolation, error.to_string())
}

/// What a table means that cannot be described.
pub(crate) fn of_plan(error: PlanError) -> Failure {
    let code = if error.is_about_column_rules() { Code::ColumnRuleUnfit } else { Code::SchemaUnrepresentable };
    Failure::caused(code, error)
}

/// What a row that cannot be written means.
pub(crate) fn of_encode(error: &EncodeError) -> Failure {
    let failure = Failure::new(Code::ValueUnrepresentable, error.to_string()).at(error.lsn());
    match error.table().split_once('.') {
        Some((schema, table)) => failure.in_table(schema, table),
        None => failure,
    }
}
