//! Reads a TOML file into leaves: a path, a value, and the place where it stands.
//!
//! Every path must be in the table of keys, and every value must have a form that the key's kind
//! can take; what the value means is `resolve`'s part.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Excerpt, Origin, nearest};
use super::keys::{self, KEYS, Kind};

/// A value that is no table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Flag(bool),
    /// Several texts.
    List(Vec<String>),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => toml::Value::from(text.as_str()).fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::List(texts) => toml::Value::from(texts.clone()).fmt(f),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The value.
    pub value: Scalar,
    /// Where it comes from.
    pub origin: Origin,
}

/// Leaves by path, with indexes: `datacenter[0].node[2].peer`.
pub(crate) type Leaves = BTreeMap<String, Leaf>;

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    leaves: Leaves,
}

/// Reads a file's text.
pub(crate) fn read(path: &Path, text: &str) -> Result<Leaves, ConfigError> {
    let mut document = Document { path, text, leaves: Leaves::new() };
    let root = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        document.error(&span, error.message().replace('\n', ", "))
    })?;
    document.walk(root.get_ref(), "", "")?;
    Ok(document.leaves)
}

impl Document<'_> {
    fn walk(&mut self, table: &DeTable<'_>, at: &str, pattern: &str) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = joined(at, name.get_ref());
            let pattern = joined(pattern, name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if is_table(&pattern) => {
                    self.walk(inner, &path, &pattern)?;
                }
                DeValue::Array(items) if is_table(&format!("{pattern}[]")) => {
                    for (index, item) in items.iter().enumerate() {
                        let DeValue::Table(inner) = item.get_ref() else {
                            let message = format!("{path} holds something that is no table");
                            return Err(self.error(&item.span(), message));
                        };
                        self.walk(inner, &format!("{path}[{index}]"), &format!("{pattern}[]"))?;
                    }
                }
                found @ (DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_)) => {
                    let Some(key) = keys::find(&pattern) else {
                        return Err(self.unknown(&name.span(), &path, &pattern));
                    };
                    let value = scalar(key.kind, found).map_err(|found| {
                        let wanted = key.kind.name();
                        self.error(&value.span(), format!("{path} wants {wanted}, not {found}"))
                    })?;
                    let origin = self.origin(&name.span());
                    self.leaves.insert(path, Leaf { value, origin });
                }
            }
        }
        Ok(())
    }

    fn unknown(&self, span: &Range<usize>, path: &str, pattern: &str) -> ConfigError {
        let mut error = self.error(span, format!("there is no key {path}"));
        error.suggestion = suggestion(pattern);
        error
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(start..).unwrap_or("").chars().count() + 1;
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn error(&self, span: &Range<usize>, message: impl Into<String>) -> ConfigError {
        let origin = self.origin(span);
        let Origin::File { line, column, .. } = &origin else {
            return ConfigError::new(Some(origin), message);
        };
        let marked = self.text.get(span.clone()).unwrap_or("");
        let width = marked.lines().next().unwrap_or("").chars().count();
        let line = self.text.lines().nth(line - 1).unwrap_or("").to_owned();
        let excerpt = Some(Box::new(Excerpt { line, column: *column, width }));
        ConfigError { excerpt, ..ConfigError::new(Some(origin), message) }
    }
}

/// The key that was probably meant by one that there is not.
pub(crate) fn suggestion(pattern: &str) -> Option<String> {
    if let Some(found) = nearest(pattern, KEYS.iter().map(|key| key.path)) {
        return Some(found.to_owned());
    }
    // The right name in the wrong table; of several the later one, which more people need.
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let name = last(pattern)?;
    KEYS.iter()
        .rfind(|key| last(key.path).as_deref() == Some(name.as_str()))
        .map(|key| key.path.to_owned())
}

fn joined(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

fn is_table(pattern: &str) -> bool {
    let prefix = format!("{pattern}.");
    KEYS.iter().any(|key| key.path.starts_with(&prefix))
}

/// The value, or what it is instead of something that the kind can take.
fn scalar(kind: Kind, value: &DeValue<'_>) -> Result<Scalar, &'static str> {
    match (kind, value) {
        (Kind::Integer | Kind::Size, DeValue::Integer(number)) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map(Scalar::Integer)
                .map_err(|_| "a number that is too large")
        }
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Scalar::Flag(*flag)),
        (
            Kind::Text | Kind::Size | Kind::Time | Kind::Address | Kind::Folder,
            DeValue::String(text),
        ) => Ok(Scalar::Text(text.to_string())),
        (Kind::Addresses, DeValue::Array(items)) => {
            let text = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                found @ (DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_)) => Err(found.type_str()),
            };
            Ok(Scalar::List(items.iter().map(text).collect::<Result<_, _>>()?))
        }
        (_, found) => Err(found.type_str()),
    }
}

/// A value from an environment variable or a flag.
pub(crate) fn from_words(kind: Kind, words: &str) -> Option<Scalar> {
    match kind {
        Kind::Integer => words.parse().ok().map(Scalar::Integer),
        Kind::Flag => words.parse().ok().map(Scalar::Flag),
        Kind::Text | Kind::Size | Kind::Time | Kind::Address | Kind::Folder => {
            Some(Scalar::Text(words.to_owned()))
        }
        Kind::Addresses => {
            Some(Scalar::List(words.split(',').map(|word| word.trim().to_owned()).collect()))
        }
    }
}
