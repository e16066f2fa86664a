//! Every module begins with a `//!` head that says what it is. Unit tests may do without (`x/tests.rs`,
//! `x/tests/`): what they test is the module beside them.

use super::{Finding, tree::Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(".rs")
        .filter(|(path, text)| !is_unit_test(path) && !has_head(text))
        .map(|(path, _)| {
            Finding::new(
                path,
                1,
                "begin with a `//!` head: what it is, its invariants, what it does not do",
            )
        })
        .collect()
}

fn is_unit_test(path: &str) -> bool {
    path.contains("/src/") && (path.ends_with("/tests.rs") || path.contains("/tests/"))
}

fn has_head(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("//!").is_some_and(|words| words.trim().len() >= 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_head_is_found() {
        let tree = Tree::of(&[
            ("a/src/good.rs", "//! Counts the sheep.\n\nuse b;\n"),
            ("a/src/none.rs", "use b;\n"),
            ("a/src/late.rs", "use b;\n//! Late.\n"),
            ("a/src/hollow.rs", "//!\n"),
            ("a/src/empty.rs", ""),
            ("a/src/good/tests.rs", "use b;\n"),
            ("a/src/good/tests/rows.rs", "use b;\n"),
        ]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["a/src/none.rs", "a/src/late.rs", "a/src/hollow.rs", "a/src/empty.rs"]);
    }
}
