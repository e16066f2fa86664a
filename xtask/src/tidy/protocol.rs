//! Every service, call, message, field and value of the protocol files says above it what it means: they are the reference of whoever
//! writes a client.

use super::{Finding, tree::Tree};

/// Statements that name nothing of the protocol.
const UNNAMED: [&str; 6] = ["syntax", "package", "import", "option", "reserved", "extensions"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(".proto").flat_map(|(path, text)| undocumented(path, text)).collect()
}

fn undocumented(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A statement may go over lines; only its first is looked at.
    let (mut begins, mut is_told) = (true, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("//") {
            is_told = line.strip_prefix("//").is_some_and(|words| !words.trim().is_empty());
            continue;
        }
        let code = line.split("//").next().unwrap_or(line).trim_end();
        let word = code.split([' ', '(', ';']).next().unwrap_or_default();
        if begins && !is_told && !code.starts_with('}') && !UNNAMED.contains(&word) {
            let message = format!("say in a comment above what `{code}` means");
            findings.push(Finding::new(path, index + 1, message));
        }
        begins = code.ends_with([';', '{', '}']);
        is_told = false;
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_documented_is_found() {
        let text = r#"// A file.
syntax = "proto3";
import "a.proto";

service Bare {
  // Told.
  rpc One(A) returns (B);
  rpc Two(A)
      returns (B);
}
// Told.
message A {
  // Told, at
  // length.
  repeated string
      one = 1;
  string two = 2;
  //
  string hollow = 3;
  reserved 4;

  // Told, of something else.

  oneof far {
    // Told.
    A five = 5;
  }
}
// Told.
enum E {
  NAKED = 0;
}
// Told.
message Empty {}
"#;
        let tree = Tree::of(&[("p.proto", text), ("p.rs", "message Other {}")]);
        let found: Vec<usize> = check(&tree).into_iter().map(|finding| finding.line).collect();
        assert_eq!(found, [5, 8, 17, 19, 24, 31]);
    }
}
