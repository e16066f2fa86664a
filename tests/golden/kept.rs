//! A data directory as files of this source: without the zeros at their ends, which are room that was allocated ahead.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::it::data_dir::tree;

/// Names of the lengths that the files have, and of the folder with their bytes.
const LENGTHS: &str = "lengths.json";
const FILES: &str = "files";
/// What a start makes by itself.
const MADE_ANEW: [&str; 2] = ["LOCK", "ballast"];
/// Directories that are there also when nothing is in them.
const DIRECTORIES: [&str; 2] = ["logs", "recycle"];

/// Writes the data directory into `folder`.
pub(super) fn keep(data_dir: &Path, folder: &Path) {
    let mut lengths = BTreeMap::new();
    for (path, bytes) in tree(data_dir).into_iter().filter(|(path, _)| path.is_file()) {
        let path = path.strip_prefix(data_dir).unwrap();
        if MADE_ANEW.iter().any(|name| path == Path::new(name)) || path.starts_with("recycle") {
            continue;
        }
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let kept = folder.join(FILES).join(path);
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::write(kept, &bytes[..end]).unwrap();
        lengths.insert(path.to_owned(), bytes.len() as u64);
    }
    let text = serde_json::to_string_pretty(&lengths).unwrap();
    fs::write(folder.join(LENGTHS), text + "\n").unwrap();
}

/// Makes the data directory that was kept in `folder`.
pub(super) fn bring_back(folder: &Path, data_dir: &Path) {
    for name in DIRECTORIES {
        fs::create_dir_all(data_dir.join(name)).unwrap();
    }
    let lengths = fs::read_to_string(folder.join(LENGTHS)).unwrap();
    let lengths: BTreeMap<PathBuf, u64> = serde_json::from_str(&lengths).unwrap();
    assert!(lengths.len() > 10, "{lengths:?}");
    for (path, len) in lengths {
        let to = data_dir.join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(&to, fs::read(folder.join(FILES).join(path)).unwrap()).unwrap();
        fs::OpenOptions::new().write(true).open(to).unwrap().set_len(len).unwrap();
    }
}
