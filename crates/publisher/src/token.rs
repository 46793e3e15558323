//! The bearer token of SASL OAUTHBEARER, from a file that somebody else keeps fresh: a side-car, or Kubernetes with a projected service account.
//!
//! librdkafka asks for a token when it has none, and again when four fifths of its life are over, but only whoever polls hears it. A call that waits
//! for brokers polls nobody. So each client is handed a token when it is made, and those that are seldom polled again before they are used.

use std::{
    error::Error,
    ffi::{CString, c_char},
    fs::File,
    io::Read,
    path::PathBuf,
    ptr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientContext,
    bindings::{rd_kafka_oauthbearer_set_token, rd_kafka_resp_err_t},
    client::{Client, OAuthToken},
};

use crate::error::PublishError;

/// Longer files are no tokens.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How long a token is taken to live that does not say it: so often is the file looked at again.
const OPAQUE_LIFE: Duration = Duration::from_mins(1);

/// Where the token is.
#[derive(Debug, Clone)]
pub(crate) struct TokenFile(pub(crate) PathBuf);

impl TokenFile {
    /// The token that is in the file now.
    pub(crate) fn read(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let unusable = |why: String| format!("the token file {} cannot be used: {why}", self.0.display());
        let mut text = String::new();
        File::open(&self.0)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| unusable(error.to_string()))?;
        let token = text.trim();
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(unusable("it is longer than 64 KiB".to_owned()).into());
        }
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unusable("it holds no token".to_owned()).into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims::of(token);
        let lives_until = claims.expires_at.unwrap_or(now + OPAQUE_LIFE);
        if lives_until <= now {
            let seconds = now.saturating_sub(lives_until).as_secs();
            return Err(
                unusable(format!("the token has expired {seconds} s ago, and nobody has written a new one")).into()
            );
        }
        Ok(OAuthToken {
            token: token.to_owned(),
            // librdkafka wants one, and does not send it: the brokers read who it is from the token.
            principal_name: claims.subject.unwrap_or_else(|| "pgsluice".to_owned()),
            lifetime_ms: i64::try_from(lives_until.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// What a client is told that asks for a new token.
    pub(crate) fn of(file: Option<&Self>) -> Result<OAuthToken, Box<dyn Error>> {
        file.ok_or("there is no kafka.oauthbearer_token_file")?.read()
    }

    /// Gives a client the token that is in the file now.
    ///
    /// # Errors
    /// There is none that can be used.
    pub(crate) fn hand<C: ClientContext>(&self, client: &Client<C>) -> Result<(), PublishError> {
        let refused = |why: String| PublishError::Token { why };
        let OAuthToken { token, principal_name, lifetime_ms } = self.read().map_err(|why| refused(why.to_string()))?;
        let text = |text: String| CString::new(text).map_err(|_| refused("the token has a zero byte".to_owned()));
        let (token, principal) = (text(token)?, text(principal_name)?);
        let mut words = [0; 512];
        // SAFETY: the client lives as long as `client`, and the texts end with a zero byte and outlive the call, which copies them. It writes no
        // more than the length that it is told, with a zero byte at the end.
        let outcome = unsafe {
            rd_kafka_oauthbearer_set_token(
                client.native_ptr(),
                token.as_ptr(),
                lifetime_ms,
                principal.as_ptr(),
                ptr::null_mut(),
                0,
                words.as_mut_ptr().cast::<c_char>(),
                words.len(),
            )
        };
        if outcome == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        let words: Vec<u8> = words.into_iter().take_while(|byte| *byte != 0).collect();
        Err(refused(format!("librdkafka does not take the token: {}", String::from_utf8_lossy(&words))))
    }
}

/// What a JSON web token says of itself (RFC 7519). Nothing is verified: that is for the brokers to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    /// Since 1970.
    expires_at: Option<Duration>,
    subject: Option<String>,
}

impl Claims {
    /// Of a token that is none, nothing is known.
    fn of(token: &str) -> Self {
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Self::default();
        };
        let payload = base64url(payload).and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let Some(payload) = payload else { return Self::default() };
        // It may have a fraction (RFC 7519, section 2).
        let seconds = payload["exp"].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self { expires_at: seconds, subject: payload["sub"].as_str().map(str::to_owned) }
    }
}

/// Undoes base64url without padding (RFC 4648, section 5).
fn base64url(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        bits = (bits << 6 | u32::from(digit(byte)?)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    (text.trim_end_matches('=').len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The example of RFC 7519, section 3.1: issued by joe, it expires at 1300819380.
    const JOE: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                       eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                       dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    #[test]
    fn a_token_says_how_long_it_lives_or_does_not() {
        let expires_at = Some(Duration::from_mins(21_680_323));
        assert_eq!(Claims::of(JOE), Claims { expires_at, subject: None });
        // {"sub":"ann","exp":1.5}
        let claims = Claims::of("e30.eyJzdWIiOiJhbm4iLCJleHAiOjEuNX0.");
        assert_eq!(claims, Claims { expires_at: Some(Duration::from_millis(1500)), subject: Some("ann".to_owned()) });
        for opaque in ["", "abc", "a.b", "a.b.c", "a.b.c.d", "e30.e30.e30", "e30.{}.e30", "..", "e30.eyJleHAiOi0xfQ."] {
            assert_eq!(Claims::of(opaque), Claims::default(), "{opaque}");
        }
    }

    #[test]
    fn base64url_is_undone() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg", b"f"), ("Zm8", b"fo"), ("Zm9v", b"foo"), ("Zm8=", b"fo"), ("-_8", &[251, 255])]
        {
            assert_eq!(base64url(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zm9vY", "Z+", "Zm 8"] {
            assert_eq!(base64url(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_that_holds_no_token_is_named_and_the_token_is_not() {
        let path = std::env::temp_dir().join(format!("pgsluice-token-{}", std::process::id()));
        let file = TokenFile(path.clone());
        let outcome = |content: Option<&str>| {
            if let Some(content) = content {
                fs::write(&path, content).expect("written");
            }
            file.read().map(|token| token.token).map_err(|error| error.to_string())
        };
        let told = [
            outcome(None),
            outcome(Some("")),
            outcome(Some("\n")),
            outcome(Some("two words")),
            outcome(Some(&"x".repeat(65 << 10))),
            outcome(Some(JOE)),
        ];
        for outcome in told {
            let error = outcome.expect_err("no token");
            assert!(
                error.contains(&*path.to_string_lossy()) && !error.contains("words") && !error.contains(JOE),
                "{error}"
            );
        }
        assert_eq!(outcome(Some("opaque\n")).as_deref(), Ok("opaque"));
        fs::remove_file(&path).expect("removed");
    }
}
