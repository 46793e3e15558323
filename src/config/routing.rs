//! Which topic a table has: a template of the names, and routes from the name that it gives to others.

use std::fmt;

use regex::Regex;

use super::document::{Data, printable};
use super::entries::{self, Entry};
use super::keys;
use super::problem::Fault;
use super::reader::{Noted, Reader};
use super::values::FromData;

/// How topics are named.
#[derive(Clone, Debug)]
pub struct Routing {
    /// The name of a topic before any route.
    pub template: TopicTemplate,
    /// The first that matches the whole of that name gives another.
    pub routes: Vec<Route>,
}

/// What a template may speak of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) name: &'a str,
    pub(super) database: &'a str,
    pub(super) schema: &'a str,
    pub(super) table: &'a str,
}

impl Routing {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let template = reader.required(&keys::KAFKA_TOPICS_TEMPLATE);
        let routes = entries::read(reader, &keys::KAFKA_TOPICS_ROUTES, Route::read);
        Ok(Self { template: template?, routes: routes? })
    }

    /// The topic of a table, which Kafka may not take yet, for it may be too long.
    pub(super) fn topic(&self, names: Names<'_>) -> String {
        let topic = self.template.expand(names);
        self.routes.iter().find_map(|route| route.apply(&topic)).unwrap_or(topic)
    }
}

/// Text in which `{name}`, `{database}`, `{schema}` and `{table}` stand for the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name,
    Database,
    Schema,
    Table,
}

impl TopicTemplate {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = if let Some(inside) = rest.strip_prefix('{') {
                let (name, after) = inside.split_once('}')?;
                let part = match name {
                    "name" => Part::Name,
                    "database" => Part::Database,
                    "schema" => Part::Schema,
                    "table" => Part::Table,
                    _ => return None,
                };
                (part, after)
            } else {
                let (literal, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
                if encoder::legal_topic(literal) != literal {
                    return None;
                }
                (Part::Text(literal.to_owned()), after)
            };
            parts.push(part);
            rest = after;
        }
        (!parts.is_empty()).then_some(Self(parts))
    }

    pub(super) fn expand(&self, names: Names<'_>) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name => names.name.to_owned(),
            Part::Database => names.database.to_owned(),
            Part::Schema => names.schema.to_owned(),
            Part::Table => names.table.to_owned(),
        };
        encoder::legal_topic(&self.0.iter().map(part).collect::<String>())
    }
}

impl FromData for TopicTemplate {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        Self::parse(&text).ok_or_else(|| {
            Fault::new(
                format!("found \"{}\"", printable(&text)),
                "give letters, digits, `.`, `_`, `-`, and {name}, {database}, {schema} or {table}, as in \"{name}.{schema}.{table}\"",
            )
        })
    }
}

/// From one name of a topic to another.
#[derive(Clone, Debug)]
pub struct Route {
    pattern: Regex,
    replacement: Replacement,
}

impl Route {
    fn read(entry: &mut Entry<'_>) -> Result<Self, Noted> {
        let pattern = entry.required("match", "\"shop\\\\.public\\\\.orders_.*\"");
        let topic: Result<String, Noted> = entry.required("topic", "\"shop.public.orders\"");
        let FullMatch(pattern) = pattern?;
        match Replacement::parse(&topic?, &pattern) {
            Ok(replacement) => Ok(Self { pattern, replacement }),
            Err(fault) => Err(entry.note("topic", fault)),
        }
    }

    fn apply(&self, topic: &str) -> Option<String> {
        let captures = self.pattern.captures(topic)?;
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Group(group) => captures.get(*group).map_or_else(String::new, |found| found.as_str().to_owned()),
        };
        Some(self.replacement.0.iter().map(text).collect())
    }
}

/// A regular expression for the whole of a text.
struct FullMatch(Regex);

impl FromData for FullMatch {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        // By itself first: parentheses that do not belong together could close the group around it.
        Regex::new(&text).and_then(|_| Regex::new(&format!("^(?:{text})$"))).map(Self).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Fault::new(
                format!("\"{}\" is no regular expression ({})", printable(&text), printable(&reason)),
                "correct it; a literal dot is \"\\\\.\" in a TOML string",
            )
        })
    }
}

/// What a route's topic is made of. It is written as in Java: `$1` is a group, with as many digits as there are groups for, and `${name}` a named
/// one. Unlike the regex crate's own, `$1_x` is group 1 and `_x`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replacement(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Replacement {
    fn parse(text: &str, pattern: &Regex) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            let (literal, after) = rest.split_at(dollar);
            pieces.push(Self::literal(literal)?);
            let (group, after) = Self::group(&after[1..], pattern)?;
            pieces.push(Piece::Group(group));
            rest = after;
        }
        pieces.push(Self::literal(rest)?);
        Ok(Self(pieces))
    }

    fn literal(text: &str) -> Result<Piece, Fault> {
        if encoder::legal_topic(text) == text {
            return Ok(Piece::Text(text.to_owned()));
        }
        Err(Fault::new(
            format!("found \"{}\", which no topic can have in its name", printable(text)),
            "give letters, digits, `.`, `_`, `-`, and $1 for the first group of `match`",
        ))
    }

    fn group<'a>(text: &'a str, pattern: &Regex) -> Result<(usize, &'a str), Fault> {
        let no_group = |found: &dyn fmt::Display| {
            let count = pattern.captures_len() - 1;
            Fault::new(
                format!("there is no group {found} in `match`"),
                format!("it has {count}: put what to keep in parentheses"),
            )
        };
        if let Some((name, rest)) = text.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            let group = pattern.capture_names().position(|known| known == Some(name));
            return group.map(|group| (group, rest)).ok_or_else(|| no_group(&printable(name)));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let longest = (1..=digits).rev().find_map(|end| {
            let group: usize = text[..end].parse().ok()?;
            (group < pattern.captures_len()).then_some((group, &text[end..]))
        });
        longest.ok_or_else(|| no_group(&printable(&text[..digits])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names { name: "shop", database: "app", schema: "Odd Schema", table: "orders_7" };

    #[test]
    fn a_template_speaks_of_the_names() {
        let expand = |text: &str| TopicTemplate::parse(text).map(|template| template.expand(NAMES));
        assert_eq!(expand("{name}.{schema}.{table}").as_deref(), Some("shop.Odd_Schema.orders_7"));
        assert_eq!(expand("cdc-{database}_{table}").as_deref(), Some("cdc-app_orders_7"));
        for text in ["", "{tabel}", "{table", "a b", "a/{table}", "{}"] {
            assert_eq!(expand(text), None, "{text}");
        }
    }

    fn route(pattern: &str, topic: &str) -> Result<Route, String> {
        let FullMatch(pattern) = FullMatch::from_data(&Data::Text(pattern.to_owned())).map_err(|fault| fault.found)?;
        let replacement = Replacement::parse(topic, &pattern).map_err(|fault| fault.found)?;
        Ok(Route { pattern, replacement })
    }

    #[track_caller]
    fn check(pattern: &str, topic: &str, expect: Option<&str>) {
        let route = route(pattern, topic).expect("a route");
        assert_eq!(route.apply("shop.public.orders_7").as_deref(), expect, "{pattern} {topic}");
    }

    #[test]
    fn a_route_matches_the_whole_and_keeps_groups_as_java_does() {
        check(r"shop\.public\.(.*)_\d+", "shop.$1", Some("shop.orders"));
        check(r"shop\.public\.(.*)_\d+", "$1_all", Some("orders_all"));
        check(r"(?P<stream>\w+)\.(\w+)\.(?P<table>.*)", "${table}.${stream}", Some("orders_7.shop"));
        check(r"(\w+)\.(\w+)\.(.*)", "$3.$12", Some("orders_7.shop2"));
        check(r"shop|shop\.public\.orders_7", "$0.x", Some("shop.public.orders_7.x"));
        check("orders_7", "x", None);
        check("shop", "x", None);
    }

    #[test]
    fn what_is_no_route_is_told() {
        let refusal = |pattern: &str, topic: &str| route(pattern, topic).expect_err("no route");
        assert_eq!(refusal("a", "$1"), "there is no group 1 in `match`");
        assert_eq!(refusal("(a)", "$2x"), "there is no group 2 in `match`");
        assert_eq!(refusal("(a)", "${b}"), "there is no group b in `match`");
        assert_eq!(refusal("(a)", "$"), "there is no group  in `match`");
        assert_eq!(refusal("a", "b c"), "found \"b c\", which no topic can have in its name");
        assert!(refusal("a)(", "b").contains("is no regular expression"));
        assert!(refusal("(a", "b").contains("unclosed group"));
    }
}
