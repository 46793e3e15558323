//! Typed reading: a key of the table in, a value or a problem out. Reading goes on after a problem, so that all are reported at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::document::{Data, Document, Value, parse_value, printable};
use super::keys::{Key, Presence};
use super::problem::{Fault, Place, Problem};
use super::secret;
use super::values::{FromData, found_type};

/// A value could not be read, and what is wrong was noted with the reader.
#[derive(Debug)]
pub(super) struct Noted;

/// Reads keys of a document and gathers what is wrong.
pub(super) struct Reader {
    document: Document,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    #[cfg(test)]
    pub(super) read: std::collections::BTreeSet<&'static str>,
}

impl Reader {
    pub(super) fn new(document: Document, problems: Vec<Problem>) -> Self {
        Self {
            document,
            problems,
            warnings: Vec::new(),
            #[cfg(test)]
            read: std::collections::BTreeSet::new(),
        }
    }

    /// Reads a key that is required or has a default.
    pub(super) fn required<T: FromData>(&mut self, key: &Key) -> Result<T, Noted> {
        match self.optional(key)? {
            Some(value) => Ok(value),
            None => Err(self.problem(key, missing(key))),
        }
    }

    /// Reads a key that may be absent.
    pub(super) fn optional<T: FromData>(&mut self, key: &Key) -> Result<Option<T>, Noted> {
        let Some(value) = self.value(key)? else { return Ok(None) };
        T::from_data(&value.data).map(Some).map_err(|fault| self.note(value.place, key.path, fault))
    }

    /// Reads a list that must have at least one member.
    pub(super) fn list<T: FromData>(&mut self, key: &Key) -> Result<Vec<T>, Noted> {
        match self.optional_list(key)? {
            Some(list) => Ok(list),
            None => Err(self.problem(key, missing(key))),
        }
    }

    /// Reads a list that has at least one member, or none if the key is absent.
    pub(super) fn optional_list<T: FromData>(&mut self, key: &Key) -> Result<Option<Vec<T>>, Noted> {
        let Some(value) = self.value(key)? else { return Ok(None) };
        let fix = format!("give a list, as in {}", key.presence.example());
        let items = match value.data {
            Data::List(items) if items.is_empty() => {
                return Err(self.problem(key, Fault::new("the list is empty", fix)));
            }
            Data::List(items) => items,
            other => return Err(self.problem(key, found_type(&other, &fix))),
        };
        // Every member is read before the list is given up, so that each that is wrong is noted.
        let parsed: Vec<_> =
            items.iter().map(|item| T::from_data(item).map_err(|fault| self.problem(key, fault))).collect();
        parsed.into_iter().collect::<Result<_, _>>().map(Some)
    }

    /// Reads a list that may be absent, which is the same as empty.
    pub(super) fn list_or_none<T: FromData>(&mut self, key: &Key) -> Result<Vec<T>, Noted> {
        match self.value(key)? {
            None => Ok(Vec::new()),
            Some(Value { data: Data::List(items), .. }) if items.is_empty() => Ok(Vec::new()),
            Some(_) => self.list(key),
        }
    }

    /// The members of a list that may be absent.
    pub(super) fn items(&mut self, key: &Key) -> Result<Option<Vec<Data>>, Noted> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value { data: Data::List(items), .. }) => Ok(Some(items)),
            Some(value) => {
                let fix = format!("give a list, as in {}", key.presence.example());
                Err(self.note(value.place, key.path, found_type(&value.data, &fix)))
            }
        }
    }

    /// Reads a table of strings, numbers and booleans as text, each with its place; empty when the key is absent.
    pub(super) fn map(&mut self, key: &Key) -> Result<BTreeMap<String, (Place, String)>, Noted> {
        let Some(value) = self.value(key)? else { return Ok(BTreeMap::new()) };
        let Data::Map(entries) = value.data else {
            let fix = format!("give a table, as in {}", key.presence.example());
            return Err(self.note(value.place, key.path, found_type(&value.data, &fix)));
        };
        let mut map = BTreeMap::new();
        let mut outcome = Ok(());
        for (name, Value { place, data }) in entries {
            let text = match data {
                Data::Text(text) => text,
                Data::Integer(number) => number.to_string(),
                Data::Boolean(flag) => flag.to_string(),
                Data::Float(number) => number.to_string(),
                other => {
                    let fault = found_type(&other, "give a string, a number, true or false");
                    outcome = Err(self.note(place, entry_path(key, &name), fault));
                    continue;
                }
            };
            map.insert(name, (place, text));
        }
        outcome.map(|()| map)
    }

    /// Reads a secret that is given either in place or by the path of a file, and not in both ways.
    pub(super) fn secret(&mut self, in_place: &Key, in_file: &Key) -> Result<Option<SecretString>, Noted> {
        let given: Result<Option<SecretString>, Noted> = self.optional(in_place);
        let from_file = self.secret_file(in_file);
        match (given?, from_file?) {
            (Some(_), Some(_)) => {
                let found = format!("{} is given too ({})", in_place.path, self.place(in_place).words());
                Err(self.problem(in_file, Fault::new(found, "give the secret in one way only")))
            }
            (given, from_file) => Ok(given.or(from_file)),
        }
    }

    /// Reads the secret in the file that a key names, if it names one.
    pub(super) fn secret_file(&mut self, key: &Key) -> Result<Option<SecretString>, Noted> {
        let Some(path) = self.optional::<PathBuf>(key)? else { return Ok(None) };
        self.read_secret_file(key.path, self.place(key), &path).map(Some)
    }

    /// Reads a file of a secret on behalf of a key.
    pub(super) fn read_secret_file(&mut self, key: &str, place: Place, path: &Path) -> Result<SecretString, Noted> {
        let secret = secret::read(path).map_err(|fault| self.note(place, key, fault))?;
        self.warn_if_public(key, path);
        Ok(secret)
    }

    /// Warns of a file of a secret that everybody can read.
    pub(super) fn warn_if_public(&mut self, key: &str, path: &Path) {
        if secret::others_can_read(path) {
            self.warnings.push(format!(
                "{key}: {} can be read by everybody on this machine; take the right away with chmod o-r",
                printable(&path.display().to_string())
            ));
        }
    }

    /// Whether the key was given, rather than left to its default.
    pub(super) fn is_given(&self, key: &Key) -> bool {
        self.document.get(key).is_some()
    }

    /// Where the key was given.
    pub(super) fn place(&self, key: &Key) -> Place {
        self.document.get(key).map_or(Place::Nowhere, |value| value.place.clone())
    }

    /// Notes what is wrong with a key.
    pub(super) fn problem(&mut self, key: &Key, fault: Fault) -> Noted {
        self.note(self.place(key), key.path, fault)
    }

    /// Notes what is wrong at a place.
    pub(super) fn note(&mut self, place: Place, key: impl Into<String>, fault: Fault) -> Noted {
        self.problems.push(Problem::new(place, key, fault));
        Noted
    }

    /// Passes a value on that is in the range, whose ends are printed by `words`.
    pub(super) fn in_range<T: PartialOrd>(
        &mut self,
        key: &Key,
        value: T,
        (minimum, maximum): (T, T),
        words: impl Fn(&T) -> String,
    ) -> Result<T, Noted> {
        if value >= minimum && value <= maximum {
            return Ok(value);
        }
        let found = format!("found {}", words(&value));
        let fix = format!("give a value from {} to {}", words(&minimum), words(&maximum));
        Err(self.problem(key, Fault::new(found, fix)))
    }

    /// The value that holds: the one given, else the default.
    fn value(&mut self, key: &Key) -> Result<Option<Value>, Noted> {
        #[cfg(test)]
        self.read.insert(key.path);
        if let Some(value) = self.document.get(key) {
            return Ok(Some(value.clone()));
        }
        let Presence::Default(text) = key.presence else { return Ok(None) };
        let data = parse_value(text, &Place::Nowhere).map_err(|fault| self.problem(key, fault))?;
        Ok(Some(Value { place: Place::Nowhere, data }))
    }
}

/// The path of one name of a key that holds a map, as it is printed.
pub(super) fn entry_path(key: &Key, name: &str) -> String {
    format!("{}.\"{}\"", key.path, printable(name))
}

fn missing(key: &Key) -> Fault {
    let (section, name) = key.split();
    let place = if section.is_empty() { "at the top".to_owned() } else { format!("under [{section}]") };
    Fault::new(
        "missing",
        format!("set {name} = {} {place}, or {} in the environment", key.presence.example(), key.variable()),
    )
}
