//! Links in Markdown lead somewhere: files exist, and headings named by an anchor too.
//!
//! Addresses on the net are not followed; the check needs no network.

use super::{Finding, tree::Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(".md").flat_map(|(path, text)| dead_links(tree, path, text)).collect()
}

fn dead_links(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
        if !tree.has(&file) {
            findings.push(Finding::new(
                path,
                line,
                format!("dead link: `{target}` does not exist"),
            ));
        } else if !anchor.is_empty() && !has_heading(tree, &file, anchor) {
            findings.push(Finding::new(
                path,
                line,
                format!("dead link: no heading makes `{target}`"),
            ));
        }
    }
    findings
}

/// Line numbers and targets of `[text](target)` and `[name]: target` outside code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            found.push((number, target.trim()));
        }
        let spans = line.split('`').step_by(2);
        for piece in spans.flat_map(|span| span.split("](").skip(1)) {
            let target = piece.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target));
        }
    }
    found
}

/// Lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// The path that `target` means when it stands in the file `from`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn has_heading(tree: &Tree, path: &str, anchor: &str) -> bool {
    let text = tree.text(path).unwrap_or_default();
    prose(text).any(|(_, line)| line.starts_with('#') && slug(line) == anchor)
}

/// The anchor of a heading: lower case, words joined by dashes, other signs dropped.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_are_found_and_living_ones_pass() {
        let bad = "[a](gone.md) and [b](sub/../other.md#no-such)\n```\n[x](in-code.md)\n```\n`[y](z.md)`\n[r]: lost.md\n";
        let good = "# Top of it, really\n[a](other.md) [b](../README.md#the-tour) [c](https://example.org/x)\n[d](#top-of-it-really) [e](sub/)\n";
        let tree = Tree::of(&[
            ("README.md", "## The tour\n"),
            ("docs/bad.md", bad),
            ("docs/good.md", good),
            ("docs/other.md", "# Other\n"),
            ("docs/sub/a.md", ""),
        ]);
        let found: Vec<(String, usize)> =
            check(&tree).into_iter().map(|finding| (finding.path, finding.line)).collect();
        let at = |line| ("docs/bad.md".to_owned(), line);
        assert_eq!(found, [at(1), at(1), at(6)]);
    }
}
