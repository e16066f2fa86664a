//! The files of the repository, read once.
//!
//! Build output, data directories and version control are left out; files that are not UTF-8 are known
//! by size only.

use std::{fs, path::Path};

/// Folders that hold no source, by name.
const SKIPPED: [&str; 4] = ["target", ".git", "riverrun-data", "node_modules"];

/// One file.
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// Size in bytes.
    pub(crate) size_bytes: u64,
    /// Content, when it is text.
    pub(crate) text: Option<String>,
}

/// All files, by path.
pub(crate) struct Tree {
    files: Vec<File>,
}

impl Tree {
    /// Reads everything under `root`.
    pub(crate) fn read(root: &Path) -> Result<Tree, String> {
        let mut files = Vec::new();
        read_folder(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { files })
    }

    /// A tree made of texts, for tests.
    #[cfg(test)]
    pub(crate) fn of(texts: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            size_bytes: text.len() as u64,
            text: Some((*text).to_owned()),
        };
        Tree { files: texts.iter().map(file).collect() }
    }

    pub(crate) fn file_count(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Text files whose name ends in `suffix`, with their text.
    pub(crate) fn texts(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |file| file.path.ends_with(suffix))
            .filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text.as_deref()
    }

    /// Whether a file or a folder with files has this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|file| {
            file.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |error| format!("cannot read `{}`: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            read_folder(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() && name != ".git" {
            let bytes = fs::read(entry.path()).map_err(failed)?;
            let size_bytes = bytes.len() as u64;
            files.push(File { path, size_bytes, text: String::from_utf8(bytes).ok() });
        }
    }
    Ok(())
}
