//! `ErrorResponse` and `NoticeResponse`.

use std::fmt;

use crate::{Recovery, message::Fields};

/// How many bytes of one field are kept. PostgreSQL's own messages are far shorter; what a hostile server sends must
/// not fill a log.
const FIELD_BYTES_MAX: usize = 4096;

/// What a server says in an `ErrorResponse` or a `NoticeResponse`.
///
/// Source: PostgreSQL documentation, "Error and Notice Message Fields".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    severity: String,
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or for a notice `WARNING`, `NOTICE`, `DEBUG`, `INFO` or `LOG`: the form that is never
    /// translated.
    pub fn severity(&self) -> &str {
        &self.severity
    }

    /// The five-character SQLSTATE, such as `55006`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The primary message, in the server's language.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// More about the problem.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What the server suggests to do.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What to do about an error with this code. An unknown one stops: going round in circles hides it.
    pub(crate) fn action(&self) -> Recovery {
        match self.code.as_str() {
            // object_in_use: the slot is still held by a connection that the server has not given up yet.
            // too_many_connections, cannot_connect_now, lock_not_available, deadlock_detected.
            "55006" | "53300" | "57P03" | "55P03" | "40P01" => Recovery::Retry,
            // system_error, io_error; query_canceled, admin_shutdown, crash_shutdown, idle_session_timeout.
            "58000" | "58030" | "57014" | "57P01" | "57P02" | "57P05" => Recovery::Reconnect,
            // configuration_limit_exceeded, such as "all replication slots are in use", does not pass by itself.
            "53400" => Recovery::Stop,
            // Connection exceptions, and resources that ran out: disk, memory.
            code if code.starts_with("08") || code.starts_with("53") => Recovery::Reconnect,
            _ => Recovery::Stop,
        }
    }

    /// Whether it is the warning that a publication is not there, which PostgreSQL 18 has in the place of an error.
    ///
    /// Its text is translated and its severity and code are not: `WARNING`, and `object_not_in_prerequisite_state`. The
    /// text is looked at too, so that a later release that changes the code does not turn this off.
    pub(crate) fn says_that_a_publication_is_missing(&self) -> bool {
        self.severity == "WARNING" && (self.code == "55000" || self.message.contains("publication"))
    }

    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let mut error = Self::default();
        let mut localized_severity = String::new();
        let mut fields = Fields::new(body);
        loop {
            let kind = fields.byte()?;
            if kind == 0 {
                break;
            }
            let value = fields.text()?;
            match kind {
                b'S' => localized_severity = bounded(value),
                b'V' => error.severity = bounded(value),
                b'C' => error.code = bounded(value),
                b'M' => error.message = bounded(value),
                b'D' => error.detail = Some(bounded(value)),
                b'H' => error.hint = Some(bounded(value)),
                // The documentation: "fields of unrecognized type should be silently ignored".
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = localized_severity;
        }
        Some(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

fn bounded(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(FIELD_BYTES_MAX)]);
    // A message may not forge lines of a log.
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in fields {
            body.push(*kind);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        body
    }

    #[test]
    fn fields_are_found_whatever_their_order() {
        let body = response(&[
            (b'S', "FEHLER"),
            (b'V', "ERROR"),
            (b'H', "wait"),
            (b'C', "55006"),
            (b'M', "slot is active"),
            (b'Z', "?"),
        ]);
        let error = ServerError::parse(&body).expect("well formed");
        assert_eq!(error.severity(), "ERROR");
        assert_eq!(error.code(), "55006");
        assert_eq!(error.detail(), None);
        assert_eq!(error.to_string(), "ERROR 55006: slot is active (hint: wait)");
        assert_eq!(error.action(), Recovery::Retry);
    }

    #[test]
    fn every_truncation_is_refused() {
        let body = response(&[(b'V', "ERROR"), (b'C', "42704"), (b'M', "gone")]);
        for end in 0..body.len() {
            assert_eq!(ServerError::parse(&body[..end]), None, "{end} bytes of {}", body.len());
        }
    }

    #[test]
    fn a_field_without_end_is_cut_and_cannot_forge_lines() {
        let body = response(&[(b'M', &format!("a\nb{}", "x".repeat(FIELD_BYTES_MAX * 2)))]);
        let error = ServerError::parse(&body).expect("well formed");
        assert_eq!(error.message().len(), FIELD_BYTES_MAX);
        assert!(error.message().starts_with("a bx"));
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        for (code, action) in [
            ("55006", Recovery::Retry),
            ("53300", Recovery::Retry),
            ("57P03", Recovery::Retry),
            ("57P01", Recovery::Reconnect),
            ("08006", Recovery::Reconnect),
            ("53100", Recovery::Reconnect),
            ("53400", Recovery::Stop),
            ("28P01", Recovery::Stop),
            ("42704", Recovery::Stop),
            ("55000", Recovery::Stop),
            ("58P01", Recovery::Stop),
            ("XX000", Recovery::Stop),
            ("", Recovery::Stop),
        ] {
            let error = ServerError { code: code.to_owned(), ..ServerError::default() };
            assert_eq!(error.action(), action, "{code}");
        }
    }
}
