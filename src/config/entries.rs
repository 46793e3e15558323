//! Lists of tables, such as `[[tables]]`: each table read name by name, and what it should not have noted.

use std::collections::BTreeMap;

use super::document::{Data, Value, printable};
use super::keys::Key;
use super::problem::{Fault, Place};
use super::reader::{Noted, Reader};
use super::values::{FromData, found_type};

/// One table of a list. Its names are taken one by one; [`finish`](Self::finish) notes those that nobody has taken.
pub(super) struct Entry<'a> {
    reader: &'a mut Reader,
    path: String,
    place: Place,
    /// Of each name that is given.
    places: BTreeMap<String, Place>,
    values: BTreeMap<String, Value>,
}

/// Reads each table of a list, every one before any is given up.
pub(super) fn read<T>(
    reader: &mut Reader,
    key: &Key,
    mut parse: impl FnMut(&mut Entry<'_>) -> Result<T, Noted>,
) -> Result<Vec<T>, Noted> {
    let Some(items) = reader.items(key)? else { return Ok(Vec::new()) };
    let mut parsed = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("{}[{index}]", key.path);
        let place = reader.place(key);
        let Data::Map(values) = item else {
            let fix = format!("give a list of tables, as in {}", key.presence.example());
            parsed.push(Err(reader.note(place, path, found_type(&item, &fix))));
            continue;
        };
        // The place of the list is that of its first table.
        let place = values.values().map(|value| value.place.clone()).min().unwrap_or(place);
        let places = values.iter().map(|(name, value)| (name.clone(), value.place.clone())).collect();
        let mut entry = Entry { reader, path, place, places, values };
        let outcome = parse(&mut entry);
        parsed.push(entry.finish().and(outcome));
    }
    parsed.into_iter().collect()
}

impl Entry<'_> {
    /// A value, if it is given.
    pub(super) fn optional<T: FromData>(&mut self, name: &str) -> Result<Option<T>, Noted> {
        let Some(value) = self.values.remove(name) else { return Ok(None) };
        T::from_data(&value.data).map(Some).map_err(|fault| self.note_at(value.place, name, fault))
    }

    /// A value that must be given, as in the example.
    pub(super) fn required<T: FromData>(&mut self, name: &str, example: &str) -> Result<T, Noted> {
        match self.optional(name)? {
            Some(value) => Ok(value),
            None => Err(self.note(name, Fault::new("missing", format!("set {name} = {example}")))),
        }
    }

    /// A list, which may be empty, if it is given.
    pub(super) fn list<T: FromData>(&mut self, name: &str) -> Result<Option<Vec<T>>, Noted> {
        let Some(Value { place, data }) = self.values.remove(name) else { return Ok(None) };
        let Data::List(items) = data else {
            return Err(self.note_at(place, name, found_type(&data, "give a list")));
        };
        let items: Result<_, _> = items.iter().map(T::from_data).collect();
        items.map(Some).map_err(|fault| self.note_at(place, name, fault))
    }

    /// One value or a list of at least one.
    pub(super) fn some<T: FromData>(&mut self, name: &str, example: &str) -> Result<Vec<T>, Noted> {
        let Some(value) = self.values.remove(name) else {
            return Err(self.note(name, Fault::new("missing", format!("set {name} = {example}"))));
        };
        let items = match value.data {
            Data::List(items) if items.is_empty() => {
                let fault = Fault::new("the list is empty", format!("set {name} = {example}"));
                return Err(self.note_at(value.place, name, fault));
            }
            Data::List(items) => items,
            one => vec![one],
        };
        let note = |fault| self.note_at(value.place.clone(), name, fault);
        items.iter().map(T::from_data).collect::<Result<_, _>>().map_err(note)
    }

    /// Notes what is wrong with one of its names, or with the lack of it.
    pub(super) fn note(&mut self, name: &str, fault: Fault) -> Noted {
        let place = self.places.get(name).unwrap_or(&self.place).clone();
        self.note_at(place, name, fault)
    }

    fn note_at(&mut self, place: Place, name: &str, fault: Fault) -> Noted {
        let path = format!("{}.{}", self.path, printable(name));
        self.reader.note(place, path, fault)
    }

    fn finish(mut self) -> Result<(), Noted> {
        let mut outcome = Ok(());
        for (name, value) in std::mem::take(&mut self.values) {
            let fault = Fault::new("unknown key", "leave it out, or correct it");
            outcome = Err(self.note_at(value.place, &name, fault));
        }
        outcome
    }
}
