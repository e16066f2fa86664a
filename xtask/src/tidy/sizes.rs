//! Bounds on files: large ones do not belong into the repository, long modules hold two nouns.

use super::{Finding, is_test, source::Source, tree::Tree};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest Rust file outside tests, in lines.
const LINE_COUNT_MAX: usize = 700;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let large = tree.files().filter(|file| file.size_bytes > FILE_BYTES_MAX).map(|file| {
        let message = format!("{} bytes; at most {FILE_BYTES_MAX} are kept here", file.size_bytes);
        Finding::new(&file.path, 0, message)
    });
    let long = tree.texts(".rs").filter(|(path, _)| !is_test(path)).filter_map(|(path, text)| {
        let line_count = Source::split(text).code_without_tests().lines().count();
        let message = format!("{line_count} lines; split it before {LINE_COUNT_MAX}");
        (line_count > LINE_COUNT_MAX).then(|| Finding::new(path, 0, message))
    });
    large.chain(long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_and_a_long_module_are_found() {
        let large = "x".repeat(1_048_577);
        let long = "a();\n".repeat(701);
        let tested = format!("a();\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let tree = Tree::of(&[
            ("docs/large.txt", &large),
            ("a/src/long.rs", &long),
            ("a/src/tested.rs", &tested),
            ("a/src/tests.rs", &long),
        ]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["docs/large.txt", "a/src/long.rs"]);
    }

    #[test]
    fn the_limits_themselves_pass() {
        let large = "x".repeat(1_048_576);
        let long = "a();\n".repeat(700);
        assert!(check(&Tree::of(&[("a.txt", &large), ("a/src/a.rs", &long)])).is_empty());
    }
}
