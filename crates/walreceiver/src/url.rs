//! Takes a connection URL apart.
//!
//! By hand, for what libpq takes for a URL is not one by the WHATWG's rules: `postgres://user@/db` has a user and no
//! host. Source: PostgreSQL documentation, "Connection URIs".

use crate::Error;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The parameters of a URL by their libpq names, taken one by one.
pub(crate) struct ConnectionUrl {
    parameters: Vec<(String, String)>,
}

impl ConnectionUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let rest = SCHEMES
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or_else(|| Error::options("url", "does not start with postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // Otherwise the rest of the password would be taken for a parameter, and shown as an unknown one. A @ of its own right
        // starts a value: a socket in the abstract name space.
        if query.replace("=@", "").contains('@') {
            return Err(Error::options("query", "holds a @, as when a password holds a ?; write %40 and %3F"));
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // At the last @, where libpq takes the first: half a password must not end up in the host's name, and so in a
        // log.
        let (credentials, host_and_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = split_port(host_and_port)?;
        if database.contains('@') {
            // Half a password must not end up in the database's name either.
            return Err(Error::options("dbname", "holds a @, as when a password holds a /; write %40 and %2F"));
        }

        let mut url = Self { parameters: Vec::new() };
        for (name, value) in
            [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", database)]
        {
            if !value.is_empty() {
                url.parameters.push((name.to_owned(), decode(name, value)?));
            }
        }
        let given_before_query = url.parameters.len();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // The text is not shown: an unescaped ? in a password makes the password look like a parameter.
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                let problem =
                    "parameters are written name=value, joined by &; a ? in a user name or password is written %3F";
                Error::options("query", problem)
            })?;
            let name = decode("parameter name", name)?;
            let value = decode(&name, value)?;
            if url.parameters[given_before_query..].iter().any(|(other, _)| *other == name) {
                return Err(Error::options(&name, "is given twice"));
            }
            url.parameters.push((name, value));
        }
        Ok(url)
    }

    /// Takes a parameter out. One in the query wins over the same one before it.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let mut found = None;
        self.parameters.retain_mut(|(other, value)| {
            let matches = other == name;
            if matches {
                found = Some(std::mem::take(value));
            }
            !matches
        });
        found
    }

    pub(crate) fn take_number(&mut self, name: &str) -> Result<Option<u32>, Error> {
        self.take(name)
            .map(|value| value.parse().map_err(|_| Error::options(name, format!("{value:?} is not a whole number"))))
            .transpose()
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.parameters.first() {
            Some((name, _)) => Err(Error::options(name, "unknown parameter")),
            None => Ok(()),
        }
    }
}

fn split_port(host_and_port: &str) -> Result<(&str, &str), Error> {
    let Some(bracketed) = host_and_port.strip_prefix('[') else {
        return Ok(host_and_port.split_once(':').unwrap_or((host_and_port, "")));
    };
    let (address, rest) =
        bracketed.split_once(']').ok_or_else(|| Error::options("host", "an IPv6 address in [ has no ] behind it"))?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if rest.is_empty() => Ok((address, "")),
        None => Err(Error::options("host", "only a port may follow an IPv6 address in brackets")),
    }
}

fn decode(name: &str, text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let byte = rest
            .split_at_checked(2)
            .and_then(|(digits, after)| {
                rest = after;
                Some(hex_digit(digits[0])? << 4 | hex_digit(digits[1])?)
            })
            .ok_or_else(|| {
                Error::options(name, "a percent sign is not followed by two hexadecimal digits (write it as %25)")
            })?;
        if byte == 0 {
            return Err(Error::options(name, "holds a zero byte"));
        }
        bytes.push(byte);
    }
    if bytes.contains(&0) {
        return Err(Error::options(name, "holds a zero byte"));
    }
    String::from_utf8(bytes).map_err(|_| Error::options(name, "is not UTF-8"))
}

fn hex_digit(digit: u8) -> Option<u8> {
    // The digit of a base below 37 fits in a byte.
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
