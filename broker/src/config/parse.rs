//! Text to settings, with line numbers in every error.

use std::{path::Path, string::FromUtf8Error};

use toml::{
    Value,
    de::{DeTable, DeValue},
};

use super::{Config, ConfigError, origins::Origins, reference::KEYS};

pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut walk = Walk { text, path, config: Config::default() };
    walk.config.origins = Origins::of(path);
    walk.table("", table.get_ref())?;
    Ok(walk.config)
}

/// Names the first byte that keeps a file from being text.
pub(super) fn no_text(error: &FromUtf8Error, path: &Path) -> ConfigError {
    let (bytes, end) = (error.as_bytes(), error.utf8_error().valid_up_to());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let column = 1 + text.chars().rev().take_while(|letter| *letter != '\n').count();
    ConfigError::Syntax {
        path: path.into(),
        line: line_of(&text, end),
        reason: format!("byte {:#04x} at column {column} is no UTF-8", bytes[end]),
    }
}

/// Goes through the tables of one file.
struct Walk<'a> {
    text: &'a str,
    path: &'a Path,
    config: Config,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = line_of(self.text, name.span().start);
            let value_or_table = value.get_ref();
            if let Some(inner) = value_or_table.as_table().filter(|_| is_table(&key)) {
                self.table(&format!("{key}."), inner)?;
                continue;
            }
            let found = self.text.get(value.span()).unwrap_or_default();
            self.value(&key, line, to_value(value_or_table), found)?;
        }
        Ok(())
    }

    fn value(
        &mut self,
        key: &str,
        line: usize,
        value: Option<Value>,
        found: &str,
    ) -> Result<(), ConfigError> {
        let Some(known) = KEYS.iter().find(|known| known.name == key) else {
            return Err(ConfigError::UnknownKey {
                path: self.path.into(),
                line,
                key: key.to_owned(),
                nearest: nearest(key),
            });
        };
        let set = value.and_then(|value| known.field.set(&mut self.config, &value));
        self.config.origins.note(known.name, line);
        set.ok_or_else(|| ConfigError::InvalidValue {
            path: self.path.into(),
            line,
            key: key.to_owned(),
            expected: known.field.bounds(),
            found: found.chars().take(100).collect(),
        })
    }
}

/// The plain value, or `None` for kinds that no key has.
fn to_value(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::from(text.as_ref())),
        DeValue::Boolean(flag) => Some(Value::from(*flag)),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().ok().map(Value::from),
        DeValue::Array(list) => {
            let values = list.iter().map(|value| to_value(value.get_ref()));
            values.collect::<Option<Vec<_>>>().map(Value::from)
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// True when some key lies in this table.
fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn line_of(text: &str, pos: usize) -> usize {
    1 + text.bytes().take(pos).filter(|byte| *byte == b'\n').count()
}

/// The valid key most like `key`, when fewer than half of its letters differ.
fn nearest(key: &str) -> Option<String> {
    let last = |name: &'static str| name.rsplit_once('.').map_or(name, |(_, last)| last);
    let typed_last = key.rsplit_once('.').map_or(key, |(_, last)| last);
    let tables = KEYS.iter().filter_map(|known| known.name.split_once('.')).map(|(table, _)| table);
    let keys = KEYS.iter().map(|known| known.name);
    keys.chain(tables)
        .map(|name| {
            // A key put into the wrong table is nearest to the one of its name.
            let whole = edit_distance(key, name);
            let moved = edit_distance(typed_last, last(name)) + 1;
            (whole.min(moved), name)
        })
        .min()
        .filter(|(distance, name)| distance * 2 <= name.len())
        .map(|(_, name)| name.to_owned())
}

/// Letters to insert, remove or replace to make one word of the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (column, other) in to.iter().enumerate() {
            let replace = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replace.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
