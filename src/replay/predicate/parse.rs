//! The text of a predicate.

use std::{cell::Cell, iter::Peekable, str::CharIndices};

use super::{Check, Expression, Literal, Predicate, Relation, Root, Test};

/// How deep parentheses and `not` may lie in each other.
const DEPTH_MAX: u32 = 64;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A word, with its text as it was written.
    Word(String),
    /// A name in double quotes.
    Quoted(String),
    Text(String),
    Number(String),
    Symbol(&'static str),
    End,
}

pub(super) fn parse(text: &str) -> Result<Predicate, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, next: 0, tests: Vec::new() };
    let expression = parser.any(0)?;
    if *parser.peek() != Token::End {
        return Err(parser.expected("\"and\", \"or\" or the end is"));
    }
    Ok(Predicate { expression, tests: parser.tests })
}

/// What is wrong, at which character, and what stands there.
fn wrong(text: &str, at: usize, what: &str) -> String {
    let character = text[..at].chars().count() + 1;
    match text[at..].chars().take(20).collect::<String>() {
        rest if rest.is_empty() => format!("{what} at the end of {text:?}"),
        rest => format!("{what} at character {character}, before {rest:?}"),
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    const SYMBOLS: [&str; 11] = ["<=", ">=", "!=", "<>", "=", "<", ">", "(", ")", ",", "."];
    let mut tokens = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some(&(at, character)) = characters.peek() {
        let token = match character {
            character if character.is_whitespace() => {
                characters.next();
                continue;
            }
            '\'' => Token::Text(quoted(text, &mut characters, '\'')?),
            '"' => Token::Quoted(quoted(text, &mut characters, '"')?),
            '0'..='9' | '-' | '+' => {
                // A sign stands at the beginning and behind an e.
                let mut last = 'e';
                Token::Number(run(&mut characters, |it| {
                    let belongs = it.is_ascii_alphanumeric()
                        || it == '.'
                        || (matches!(it, '-' | '+') && matches!(last, 'e' | 'E'));
                    last = it;
                    belongs
                }))
            }
            character if character.is_alphabetic() || character == '_' => {
                Token::Word(run(&mut characters, |it| it.is_alphanumeric() || matches!(it, '_' | '$')))
            }
            _ => {
                let symbol = SYMBOLS.into_iter().find(|symbol| text[at..].starts_with(symbol));
                let symbol = symbol.ok_or_else(|| wrong(text, at, "something that means nothing stands"))?;
                for _ in symbol.chars() {
                    characters.next();
                }
                Token::Symbol(symbol)
            }
        };
        if let Token::Number(number) = &token
            && encoder::decode::compare_numbers(number, "0").is_none()
        {
            return Err(wrong(text, at, "what is no number stands"));
        }
        tokens.push((at, token));
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn run(characters: &mut Peekable<CharIndices<'_>>, mut belongs: impl FnMut(char) -> bool) -> String {
    let mut found = String::new();
    while let Some((_, character)) = characters.next_if(|(_, character)| belongs(*character)) {
        found.push(character);
    }
    found
}

fn quoted(text: &str, characters: &mut Peekable<CharIndices<'_>>, quote: char) -> Result<String, String> {
    let begin = characters.next().map_or(0, |(at, _)| at);
    let mut found = String::new();
    loop {
        match characters.next() {
            None => return Err(wrong(text, begin, "a quote that is not closed stands")),
            Some((_, character)) if character == quote => {
                if characters.next_if(|(_, next)| *next == quote).is_none() {
                    return Ok(found);
                }
                found.push(quote);
            }
            Some((_, character)) => found.push(character),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    tests: Vec<Test>,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    /// The last token, the end, stays.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn expected(&self, what: &str) -> String {
        wrong(self.text, self.at(), &format!("{what} expected"))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word));
        if is_it {
            self.take();
        }
        is_it
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        if is_it {
            self.take();
        }
        is_it
    }

    fn any(&mut self, depth: u32) -> Result<Expression, String> {
        self.chain(depth, "or", Self::all, Expression::Any)
    }

    fn all(&mut self, depth: u32) -> Result<Expression, String> {
        self.chain(depth, "and", Self::not, Expression::All)
    }

    fn chain(
        &mut self,
        depth: u32,
        word: &str,
        part: fn(&mut Self, u32) -> Result<Expression, String>,
        whole: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, String> {
        let first = part(self, depth)?;
        let mut parts = vec![first];
        while self.take_word(word) {
            parts.push(part(self, depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { whole(parts) })
    }

    fn not(&mut self, depth: u32) -> Result<Expression, String> {
        if depth > DEPTH_MAX {
            return Err(self.expected("less that lies in each other is"));
        }
        if self.take_word("not") {
            return Ok(Expression::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.take_symbol("(") {
            let inner = self.any(depth + 1)?;
            return if self.take_symbol(")") { Ok(inner) } else { Err(self.expected("\")\" is")) };
        }
        self.test()
    }

    fn test(&mut self) -> Result<Expression, String> {
        let begin = self.at();
        let mut names = vec![self.name()?];
        while self.take_symbol(".") {
            names.push(self.name()?);
        }
        let path = self.text[begin..self.at()].trim().to_owned();
        let root = match names[0].as_str() {
            "key" => Root::Key,
            "header" if names.len() > 1 => Root::Header,
            "value" => Root::Value,
            _ => {
                names.insert(0, String::new());
                Root::Value
            }
        };
        names.remove(0);
        if root == Root::Header && names.len() > 1 {
            // A header's name may have dots in it.
            names = vec![names.join(".")];
        }
        let is_not = self.take_word("not");
        let (check, is_not) = if self.take_word("in") {
            (Check::In(self.literals()?), is_not)
        } else if is_not {
            return Err(self.expected("\"in\" is"));
        } else if self.take_word("is") {
            let is_not = self.take_word("not");
            if !self.take_word("null") {
                return Err(self.expected("\"null\" is"));
            }
            (Check::IsNull, is_not)
        } else {
            (Check::Compare(self.relation()?, self.literal()?), false)
        };
        self.tests.push(Test { path, root, names, check, was_there: Cell::new(false), was_another: Cell::new(false) });
        let test = Expression::Test(self.tests.len() - 1);
        Ok(if is_not { Expression::Not(Box::new(test)) } else { test })
    }

    fn name(&mut self) -> Result<String, String> {
        let is_reserved = |word: &str| ["and", "or", "not", "in", "is"].iter().any(|it| it.eq_ignore_ascii_case(word));
        match self.peek() {
            Token::Word(word) if is_reserved(word) => Err(self.expected("the name of a field is")),
            Token::Word(_) | Token::Quoted(_) => match self.take() {
                Token::Word(name) | Token::Quoted(name) => Ok(name),
                _ => Err(self.expected("the name of a field is")),
            },
            _ => Err(self.expected("the name of a field is")),
        }
    }

    fn relation(&mut self) -> Result<Relation, String> {
        let relation = match self.peek() {
            Token::Symbol("=") => Relation::Equal,
            Token::Symbol("!=" | "<>") => Relation::NotEqual,
            Token::Symbol("<") => Relation::Less,
            Token::Symbol("<=") => Relation::LessOrEqual,
            Token::Symbol(">") => Relation::Greater,
            Token::Symbol(">=") => Relation::GreaterOrEqual,
            _ => return Err(self.expected("a comparison such as =, \"in\" or \"is\" is")),
        };
        self.take();
        Ok(relation)
    }

    fn literals(&mut self) -> Result<Vec<Literal>, String> {
        if !self.take_symbol("(") {
            return Err(self.expected("\"(\" is"));
        }
        let mut literals = vec![self.literal()?];
        while self.take_symbol(",") {
            literals.push(self.literal()?);
        }
        if self.take_symbol(")") { Ok(literals) } else { Err(self.expected("\",\" or \")\" is")) }
    }

    fn literal(&mut self) -> Result<Literal, String> {
        let is_reserved = |word: &str| ["and", "or", "not", "in", "is"].iter().any(|it| it.eq_ignore_ascii_case(word));
        let literal = match self.peek() {
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Number(number) => Literal::Number(number.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Boolean(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Boolean(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => {
                return Err(self.expected("nothing equals null: \"is null\" is"));
            }
            Token::Word(word) if !is_reserved(word) => Literal::Text(word.clone()),
            Token::Quoted(_) => return Err(self.expected("a value in single quotes is")),
            _ => return Err(self.expected("a value is")),
        };
        self.take();
        Ok(literal)
    }
}
