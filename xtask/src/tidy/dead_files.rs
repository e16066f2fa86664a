//! A Rust file that no `mod` names is never compiled; it is found here.

use super::{Finding, source::Source, tree::Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(".rs")
        .filter(|(path, _)| is_module(path) && !is_named(tree, path))
        .map(|(path, _)| {
            Finding::new(path, 0, "no module names this file, so it is never compiled")
        })
        .collect()
}

/// Whether the file lives as a module, not as the root of a crate.
fn is_module(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    let folder = parts.last().copied().unwrap_or_default();
    if ["lib.rs", "main.rs", "build.rs"].contains(&name) {
        return false;
    }
    // `crate/tests/x.rs`, `crate/examples/x.rs` and `crate/benches/x.rs` are crates of their own.
    let own_crate = parts.len() == 2 && ["tests", "examples", "benches"].contains(&folder);
    !own_crate && folder != "bin"
}

fn is_named(tree: &Tree, path: &str) -> bool {
    let path = path.strip_suffix("/mod.rs").unwrap_or(path.trim_end_matches(".rs"));
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parents = ["mod.rs", "lib.rs", "main.rs"].map(|file| format!("{folder}/{file}"));
    let beside = format!("{folder}.rs");
    let declared = |parent: &str| {
        let text = tree.text(parent).unwrap_or_default();
        let code = Source::split(text).code;
        code.split(['\n', ';', '}']).any(|piece| {
            let words: Vec<&str> = piece.split_whitespace().collect();
            words.ends_with(&["mod", name])
        }) || text.contains(&format!("{name}.rs\""))
    };
    parents.iter().chain([&beside]).any(|parent| declared(parent)) || tree_names_by_path(tree, path)
}

/// Whether a manifest or a `#[path]` names the file outright.
fn tree_names_by_path(tree: &Tree, path: &str) -> bool {
    let (crate_folder, inside) = path.split_once('/').unwrap_or(("", path));
    let manifest = tree.text(&format!("{crate_folder}/Cargo.toml")).unwrap_or_default();
    manifest.contains(&format!("\"{inside}.rs\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_no_module_names_are_found() {
        let tree = Tree::of(&[
            ("a/Cargo.toml", "[[bin]]\npath = \"load/run.rs\""),
            (
                "a/src/lib.rs",
                "pub mod used;\n#[cfg(test)] mod tests;\n// mod dead;\npub(crate) mod deep;",
            ),
            ("a/src/used.rs", ""),
            ("a/src/used/inner.rs", ""),
            ("a/src/deep/mod.rs", "mod inner;"),
            ("a/src/deep/inner.rs", ""),
            ("a/src/tests.rs", ""),
            ("a/src/dead.rs", ""),
            ("a/load/run.rs", ""),
            ("a/examples/show.rs", ""),
            ("tests/main.rs", "mod it;"),
            ("tests/it/mod.rs", "mod produce;"),
            ("tests/it/produce.rs", ""),
            ("tests/it/lost.rs", ""),
        ]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["a/src/used/inner.rs", "a/src/dead.rs", "tests/it/lost.rs"]);
    }
}
