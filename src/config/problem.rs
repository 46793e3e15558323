//! What is wrong with a configuration: a list of problems, each with its place, its key, what was found and the fix.

use std::fmt;

/// Everything that is wrong with a configuration, as far as it can be found in one go.
///
/// Its display is several lines, one a problem, ready for the terminal. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|left, right| left.place.cmp(&right.place));
        Self { problems }
    }

    /// The problems: those of the file by line, then those of the environment, then what is missing.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(formatter, "the configuration has a problem:")?,
            count => write!(formatter, "the configuration has {count} problems:")?,
        }
        for problem in &self.problems {
            write!(formatter, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) place: Place,
    pub(super) key: Option<String>,
    pub(super) fault: Fault,
}

impl Problem {
    pub(super) fn new(place: Place, key: impl Into<String>, fault: Fault) -> Self {
        Self { place, key: Some(key.into()), fault }
    }

    /// The dotted path of the key, such as `postgres.slot`; none when the text is not TOML or the file cannot be read.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What was found, without any secret.
    pub fn found(&self) -> &str {
        &self.fault.found
    }

    /// What to do about it.
    pub fn fix(&self) -> &str {
        &self.fault.fix
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { line: 0 } | Place::Nowhere => {}
            Place::File { line } => write!(formatter, "line {line}: ")?,
            Place::Environment { variable } => write!(formatter, "environment variable {variable}: ")?,
        }
        if let Some(key) = &self.key {
            write!(formatter, "{key}: ")?;
        }
        write!(formatter, "{}; {}", self.fault.found, self.fault.fix)
    }
}

/// What was found and what to do: a problem that does not yet know its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) fix: String,
}

impl Fault {
    pub(super) fn new(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { found: found.into(), fix: fix.into() }
    }
}

/// Where a value came from. The order is the order of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The file; lines count from 1, and 0 is the file as a whole.
    File { line: usize },
    /// An environment variable.
    Environment { variable: String },
    /// Nowhere: a default, or a key that is missing.
    Nowhere,
}

impl Place {
    /// The words for a text that compares two places.
    pub(super) fn words(&self) -> String {
        match self {
            Self::File { line } => format!("line {line}"),
            Self::Environment { variable } => format!("environment variable {variable}"),
            Self::Nowhere => "the default".to_owned(),
        }
    }
}
