//! Secrets that are kept in files of their own.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

use super::document::printable;
use super::problem::Fault;

/// Longer files are no passwords or keys: a wrong path is more likely.
const BYTES_MAX: u64 = 64 * 1024;

/// Reads a secret, without one trailing line break, which editors and `echo` leave behind.
pub(super) fn read(path: &Path) -> Result<SecretString, Fault> {
    let name = printable(&path.display().to_string());
    let unreadable = |error: std::io::Error| {
        Fault::new(format!("cannot read {name} ({error})"), "give the path of a file that this process can read")
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Fault::new(
            format!("{name} is longer than 64 KiB"),
            "give the path of a file that holds the secret alone",
        ));
    }
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(Fault::new(format!("{name} is empty"), "write the secret into it"));
    }
    Ok(SecretString::from(secret))
}

/// Whether everybody on this machine may read a file, if it is there.
pub(super) fn others_can_read(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o004 != 0)
}
