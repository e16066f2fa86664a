//! Tests named in the documentation exist: `` `path/to/file.rs::name_of_the_test` ``.
//!
//! A guarantee names the test that shows it; when the test goes or is renamed, the page must follow.

use super::{Finding, tree::Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(".md").flat_map(|(path, text)| dead_mentions(tree, path, text)).collect()
}

fn dead_mentions(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for span in line.split('`').skip(1).step_by(2) {
            let Some((file, name)) = span.split_once(".rs::") else { continue };
            let declaration = format!("fn {name}(");
            let source = tree.text(&format!("{file}.rs")).unwrap_or_default();
            if !source.contains(&declaration) {
                let message = format!("`{file}.rs` has no test `{name}`");
                findings.push(Finding::new(path, index + 1, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_is_found() {
        let tree = Tree::of(&[
            ("a/src/x.rs", "#[test]\nfn it_holds() {}\n"),
            (
                "docs/a.md",
                "`a/src/x.rs::it_holds`\n| x | `a/src/x.rs::it_hold`, `b.rs::gone` |\n`x.rs`\n",
            ),
        ]);
        let lines: Vec<usize> = check(&tree).into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 2]);
    }
}
