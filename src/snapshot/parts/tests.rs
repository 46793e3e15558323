use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::snapshot::Progress;

const TABLE: u32 = 7;
/// More than one digit, so that the order is not that of texts: nothing here may compare.
const KEYS: usize = 40;

fn key(number: usize) -> Vec<String> {
    vec![number.to_string()]
}

fn number(key: Option<&Vec<String>>) -> usize {
    key.map_or(0, |key| key[0].parse().expect("a number"))
}

fn record(parts: Vec<Part>, after: Option<Vec<String>>) -> TableRecord {
    TableRecord::new("public", "t", Vec::new(), 1).at(after, parts)
}

fn read(attachment: Attachment) -> TableRecord {
    let held = [(attachment.suffix, attachment.value.expect("a value"))].into();
    Progress::read(&held).expect("it can be used").tables.remove(&TABLE).expect("the table's")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever is written in which order, and however often a life ends: each row is copied once, and the place of the record has all before it.
    #[test]
    fn each_row_is_in_one_part_and_copied_once(
        cuts in prop::collection::btree_set(2..KEYS, 0..PARTS_MAX),
        steps in prop::collection::vec((0..PARTS_MAX, 1..5_usize, 0..20_u8), 0..200),
    ) {
        let mut copied: BTreeMap<usize, u32> = BTreeMap::new();
        let mut saved = record(Vec::new(), Some(key(1)));
        copied.insert(1, 1);
        let cuts: Vec<_> = cuts.into_iter().map(key).collect();
        if let Some(parts) = cut(saved.after.as_ref(), &cuts) {
            saved.parts = parts;
        }
        let mut parts = Arc::new(Parts::new(saved.clone()));
        let take_all = |parts: &Parts| -> Vec<Taken> { std::iter::from_fn(|| parts.take(By::Helper)).collect() };
        let mut taken = take_all(&parts);
        for (which, rows, dies) in steps {
            if taken.is_empty() || dies == 0 {
                saved = read(saved.attachment(Oid::from(TABLE)));
                parts = Arc::new(Parts::new(saved.clone()));
                taken = take_all(&parts);
                continue;
            }
            let which = which % taken.len();
            let Taken { id, part } = &mut taken[which];
            let end = part.up_to().map_or(KEYS, |end| number(Some(&end.to_vec())));
            let begin = number(part.after.as_ref());
            let last = (begin + rows).min(end);
            (begin + 1..=last).for_each(|row| *copied.entry(row).or_default() += 1);
            let is_end = last == end;
            let last = (last > begin).then(|| key(last));
            part.after = last.clone().or(part.after.take());
            let advance = Advance { parts: Arc::clone(&parts), id: *id, last, rows: 1, bytes: 1, is_end };
            if is_end {
                parts.give_back(*id);
                taken.remove(which);
            }
            saved = advance.written();
            prop_assert!(are_parts(&saved.parts, saved.after.as_ref()));
            prop_assert!(saved.parts.iter().all(|part| part.after != part.up_to), "one that is over is not read again");
            let place = number(saved.after.as_ref());
            prop_assert!((1..=place).all(|row| copied.contains_key(&row)), "{place} {copied:?}");
        }
        // What is left, by whoever knows parts.
        let left: Vec<(usize, usize)> = match saved.parts.as_slice() {
            [] => vec![(number(saved.after.as_ref()), KEYS)],
            parts => parts.iter().map(|part| {
                (number(part.after.as_ref()), part.up_to().map_or(KEYS, |end| number(Some(&end.to_vec()))))
            }).collect(),
        };
        for row in left.into_iter().flat_map(|(begin, end)| begin + 1..=end) {
            *copied.entry(row).or_default() += 1;
        }
        prop_assert_eq!(copied, (1..=KEYS).map(|row| (row, 1)).collect::<BTreeMap<_, _>>());
    }
}

#[test]
fn the_record_is_this_json_and_one_without_parts_has_one() {
    let parts = cut(Some(&key(3)), &[key(7), key(9)]).expect("it can be cut");
    let record = record(parts, Some(key(3)));
    let attachment = record.attachment(Oid::from(TABLE));
    let json = r#""after":["3"],"parts":[{"after":["3"],"up_to":["7"]},{"after":["7"],"up_to":["9"]},{"after":["9"]}],"rows":0"#;
    let text = String::from_utf8(attachment.value.clone().expect("a value")).expect("text");
    assert!(text.contains(json), "{text}");
    assert_eq!(read(attachment), record);
    for whole in [record.stopped(1), record.ended(1), record.without_parts()] {
        assert_eq!((whole.parts.len(), whole.after), (0, Some(key(3))), "all before that is copied");
    }
    let parts = Parts::new(record.without_parts());
    assert!(parts.take(By::Lead).is_none() && parts.are_over());
}

#[test]
fn parts_that_are_not_those_of_one_table_are_refused() {
    type Break = fn(&mut Vec<Part>);
    let whole = cut(None, &[key(7), key(9)]).expect("it can be cut");
    let broken: [(Break, Option<Vec<String>>); 6] = [
        (|parts| parts.truncate(1), None),
        (|parts| drop(parts.pop()), None),
        (|parts| parts[1].up_to = None, None),
        (|parts| parts[1].after = None, None),
        (|_| {}, Some(key(1))),
        (|parts| (0..PARTS_MAX).for_each(|_| parts.insert(1, parts[1].clone())), None),
    ];
    assert!(are_parts(&whole, None));
    for (position, (break_it, after)) in broken.into_iter().enumerate() {
        let mut parts = whole.clone();
        break_it(&mut parts);
        assert!(!are_parts(&parts, after.as_ref()), "{position}");
        let attachment = record(parts, after).attachment(Oid::from(TABLE));
        let held = [(attachment.suffix, attachment.value.expect("a value"))].into();
        Progress::read(&held).expect_err("it cannot be used");
    }
}

/// A record of a mebibyte would not be taken by a broker as it is by default.
#[test]
fn a_record_has_room_for_the_longest_keys() {
    let long = |bytes: usize| vec!["\u{1}".repeat(bytes)];
    assert!(is_place(&long(PLACE_BYTES_MAX)) && !is_place(&long(PLACE_BYTES_MAX + 1)));
    assert!(cut(None, &[long(CUT_BYTES_MAX + 1)]).is_none());
    assert!(cut(Some(&long(PLACE_BYTES_MAX + 1)), &[key(1)]).is_none());
    assert!(cut(None, &[]).is_none() && cut(None, &vec![key(1); PARTS_MAX]).is_none());
    let parts = cut(None, &vec![long(CUT_BYTES_MAX); PARTS_MAX - 1]).expect("it can be cut");
    let parts = Arc::new(Parts::new(record(parts, None)));
    let mut written = None;
    while let Some(Taken { id, .. }) = parts.take(By::Lead) {
        let last = Some(long(PLACE_BYTES_MAX));
        let advance = Advance { parts: Arc::clone(&parts), id, last, rows: 1, bytes: 1, is_end: false };
        written = Cursor::Part(advance).written(Oid::from(TABLE)).0.value;
    }
    let bytes = written.expect("a record").len();
    assert!((400_000..900_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_part_is_copied_by_one_and_what_the_lead_is_to_have_by_nobody_else() {
    let parts = Parts::new(record(cut(None, &[key(7), key(9)]).expect("it can be cut"), None));
    let [first, second, third] = [By::Lead, By::Helper, By::Helper].map(|by| parts.take(by).expect("a part").id);
    assert_eq!((parts.taken(), parts.take(By::Helper), parts.are_over()), (3, None, false));
    parts.have_moved_rows();
    assert!(!parts.are_wanted_back(), "the lead will hear of them itself");
    parts.give_back(second);
    assert_eq!(parts.take(By::Lead).map(|taken| taken.id), Some(second));
    assert_eq!(parts.take(By::Lead), None);
    parts.have_moved_rows();
    assert!(parts.are_wanted_back() && !parts.are_closed());
    parts.give_back(third);
    assert_eq!(parts.take(By::Helper), None);
    assert_eq!(parts.take(By::Lead).map(|taken| taken.id), Some(third));
    assert!(!parts.are_wanted_back());
    parts.give_back(first);
    assert_eq!(parts.take(By::Helper).map(|taken| taken.id), Some(first));
    parts.give_back(first);
    parts.close();
    assert!(parts.are_wanted_back() && parts.take(By::Lead).is_none());
}
