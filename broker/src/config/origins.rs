//! Where settings came from, so that whoever reads what is wrong with two of them finds both.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Places of settings in the file they were read from. Those that are not in it are defaults, or were said elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    path: PathBuf,
    lines: BTreeMap<&'static str, usize>,
}

/// A setting, its value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The key, with its table.
    pub key: &'static str,
    /// Its value, as it is written in a file.
    pub value: String,
    /// `path:line`, where it came from a file.
    pub place: Option<String>,
}

/// Settings are the same wherever they came from.
impl PartialEq for Origins {
    fn eq(&self, _other: &Origins) -> bool {
        true
    }
}

impl Eq for Origins {}

impl Origins {
    /// No setting yet of the file at `path`.
    pub(super) fn of(path: &Path) -> Origins {
        Origins { path: path.into(), lines: BTreeMap::new() }
    }

    pub(super) fn note(&mut self, key: &'static str, line: usize) {
        self.lines.insert(key, line);
    }

    /// Notes that a setting was said elsewhere after all, such as on the command line.
    pub fn forget(&mut self, key: &str) {
        self.lines.remove(key);
    }

    pub(super) fn said(&self, key: &'static str, value: String) -> Said {
        let place = self.lines.get(key).map(|line| format!("{}:{line}", self.path.display()));
        Said { key, value, place }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { key, value, place } = self;
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        }
        write!(f, "`{key}` is `{value}`")
    }
}
