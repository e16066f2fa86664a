//! Words and calls that have no place in some part of the source.
//!
//! Clippy refuses calls by full path; these rules see what it does not: attributes, comments, whole
//! crates used in the wrong room, and paths of somebody's machine.

use super::{Finding, is_test, source::Source, tree::Tree};

/// Where a word is looked for.
enum View {
    /// Code, tests included.
    Code,
    /// Code outside tests.
    CodeOutsideTests,
    /// Comments.
    Comments,
}

/// A word, where it is looked for, and where it is welcome.
struct Ban {
    word: &'static str,
    view: View,
    /// Applies to paths for which this holds.
    applies: fn(&str) -> bool,
    instead: &'static str,
}

const BANS: [Ban; 16] = [
    everywhere("todo!(", "finish it or leave it out"),
    everywhere("unimplemented!(", "finish it or leave it out"),
    everywhere(
        "#[ignore",
        "a test runs or is deleted; a slow one takes its size from the environment",
    ),
    everywhere(
        "#[should_panic",
        "assert on the error, or catch the panic at the call that should panic",
    ),
    everywhere("#![allow(", "use #[expect(.., reason)] at the narrowest place"),
    comment("TODO", "do it, or write an issue"),
    comment("FIXME", "mend it, or write an issue"),
    comment("XXX", "say what is meant"),
    room(
        "std::fs",
        may_not_touch_files,
        "only storage/src/disk, configuration and the cli touch files",
    ),
    room("tokio::fs", may_not_touch_files, "file calls go through storage"),
    room(
        "tonic::",
        may_not_know_tonic,
        "tonic stays in the broker's gateway, the client's connection and what exports traces",
    ),
    room("axum::", may_not_know_axum, "axum stays in the broker's web door"),
    room("hyper::", may_not_know_hyper, "hyper stays in the broker's web door and webhooks"),
    room(
        "riverrun_storage",
        may_not_know_storage,
        "in the cli only `log` and `serve` know storage",
    ),
    room("riverrun_broker", may_not_know_broker, "in the cli only `serve` knows the broker"),
    room("memmap2", may_not_map_files, "only storage/src/disk maps files"),
];

const fn everywhere(word: &'static str, instead: &'static str) -> Ban {
    Ban { word, view: View::Code, applies: |_| true, instead }
}

const fn comment(word: &'static str, instead: &'static str) -> Ban {
    Ban { word, view: View::Comments, applies: |_| true, instead }
}

const fn room(word: &'static str, applies: fn(&str) -> bool, instead: &'static str) -> Ban {
    Ban { word, view: View::CodeOutsideTests, applies, instead }
}

fn may_not_touch_files(path: &str) -> bool {
    let library = ["proto/src/", "storage/src/", "broker/src/", "client/src/"];
    let allowed = ["storage/src/disk", "storage/src/data_dir.rs", "broker/src/config"];
    starts_with_any(path, &library) && !starts_with_any(path, &allowed)
}

fn may_not_know_tonic(path: &str) -> bool {
    let library = ["proto/src/", "storage/src/", "broker/src/", "client/src/", "cli/src/"];
    let allowed =
        ["proto/src/grpc", "broker/src/gateway", "client/src/connection", "cli/src/serve/otlp"];
    starts_with_any(path, &library) && !starts_with_any(path, &allowed)
}

fn may_not_know_axum(path: &str) -> bool {
    let library = ["proto/src/", "storage/src/", "broker/src/", "client/src/", "cli/src/"];
    starts_with_any(path, &library) && !path.starts_with("broker/src/gateway/web/")
}

fn may_not_know_hyper(path: &str) -> bool {
    may_not_know_axum(path) && !path.starts_with("broker/src/gateway/webhook/")
}

fn may_not_know_storage(path: &str) -> bool {
    path.starts_with("cli/src/") && !starts_with_any(path, &["cli/src/log", "cli/src/serve"])
}

fn may_not_know_broker(path: &str) -> bool {
    path.starts_with("cli/src/") && !starts_with_any(path, &["cli/src/serve", "cli/src/config"])
}

fn may_not_map_files(path: &str) -> bool {
    !path.starts_with("storage/src/disk")
}

fn starts_with_any(path: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

/// Folders that exist on one machine only. Put together here so that this file passes its own rule.
const PRIVATE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Use", "rs/")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(".rs") {
        let source = Source::split(text);
        for ban in BANS.iter().filter(|ban| (ban.applies)(path)) {
            let view = match ban.view {
                View::Code => &source.code,
                View::CodeOutsideTests if is_test(path) => "",
                View::CodeOutsideTests => source.code_without_tests(),
                View::Comments => &source.comments,
            };
            let message = format!("`{}` is not used here: {}", ban.word, ban.instead);
            findings
                .extend(lines_with(view, ban.word).map(|line| Finding::new(path, line, &message)));
        }
    }
    findings.extend(tree.texts("").flat_map(|(path, text)| private_paths(path, text)));
    findings
}

fn private_paths(path: &str, text: &str) -> Vec<Finding> {
    let found = |word: &&'static str| {
        let message = format!("`{word}..` is a path of one machine; use a relative one");
        lines_with(text, word).map(|line| Finding::new(path, line, &message)).collect::<Vec<_>>()
    };
    PRIVATE_PATHS.iter().flat_map(found).collect()
}

/// Numbers, from 1, of the lines that hold `word` not as the end of a longer word.
fn lines_with(text: &str, word: &str) -> impl Iterator<Item = usize> {
    let inside = move |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    };
    text.lines().enumerate().filter(move |(_, line)| inside(line)).map(|(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects exactly the given lines of `text`, stored at `path`, to be found.
    #[track_caller]
    fn finds(path: &str, text: &str, lines: &[usize]) {
        let found: Vec<usize> = check(&Tree::of(&[(path, text)])).iter().map(|f| f.line).collect();
        assert_eq!(found, lines, "in {path}: {text}");
    }

    #[test]
    fn unfinished_and_silenced_code_is_found() {
        finds("broker/src/a.rs", "fn a() {\n    todo!()\n}\n", &[2]);
        finds("broker/src/a.rs", "fn a() {\n    unimplemented!(\"later\")\n}\n", &[2]);
        finds("tests/it/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n", &[2]);
        finds("tests/it/a.rs", "#[should_panic(expected = \"x\")]\nfn a() {}\n", &[1]);
        finds("cli/src/a.rs", "#![allow(dead_code)]\n", &[1]);
        finds("cli/src/a.rs", "a(); // TODO later\n/* FIXME */\n", &[1, 2]);
    }

    #[test]
    fn words_in_strings_and_other_words_are_not_found() {
        finds("cli/src/a.rs", "let a = \"todo!(\"; // not todo!(\n", &[]);
        finds("cli/src/a.rs", "my_todo!()\n", &[]);
        finds("cli/src/a.rs", "// METODOS\n", &[]);
    }

    #[test]
    fn files_are_touched_in_their_rooms_only() {
        finds("broker/src/topic.rs", "use std::fs;\n", &[1]);
        finds("storage/src/log.rs", "std::fs::read(p)\n", &[1]);
        finds("storage/src/disk/real.rs", "std::fs::read(p)\n", &[]);
        finds("broker/src/config.rs", "std::fs::read(p)\n", &[]);
        finds("broker/src/topic/tests.rs", "std::fs::read(p)\n", &[]);
        finds("client/src/testing.rs", "std::fs::read(p)\n", &[]);
        finds("broker/src/topic.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", &[]);
        finds("storage/src/log.rs", "use memmap2::Mmap;\n", &[1]);
    }

    #[test]
    fn axum_stays_in_the_web_door() {
        finds("broker/src/service/produce.rs", "use axum::Router;\n", &[1]);
        finds("broker/src/gateway/grpc/mod.rs", "use hyper::body::Incoming;\n", &[1]);
        finds("broker/src/gateway/web/mod.rs", "use axum::Router;\nuse hyper::body::Body;\n", &[]);
        finds(
            "broker/src/gateway/webhook/post.rs",
            "use axum::Router;\nuse hyper::Request;\n",
            &[1],
        );
    }

    #[test]
    fn tonic_stays_where_calls_go_in_and_out() {
        finds("broker/src/service/produce.rs", "use tonic::Status;\n", &[1]);
        finds("client/src/producer.rs", "tonic::Code::Ok\n", &[1]);
        finds("broker/src/gateway/grpc/produce.rs", "use tonic::Status;\n", &[]);
        finds("client/src/connection.rs", "use tonic::Status;\n", &[]);
        finds("cli/src/serve/otlp.rs", "use tonic::Status;\n", &[]);
        finds("cli/src/serve.rs", "use tonic::Status;\n", &[1]);
    }

    #[test]
    fn the_cli_keeps_storage_and_broker_apart() {
        finds("cli/src/produce.rs", "use riverrun_storage::Disk;\n", &[1]);
        finds("cli/src/log.rs", "use riverrun_storage::Disk;\n", &[]);
        finds("cli/src/topic.rs", "use riverrun_broker::Broker;\n", &[1]);
        finds("cli/src/serve.rs", "use riverrun_broker::Broker;\n", &[]);
    }

    #[test]
    fn paths_of_one_machine_are_found_in_any_text() {
        let path = format!("see {}somebody/notes", PRIVATE_PATHS[2]);
        finds("docs/a.md", &format!("fine\n{path}\n"), &[2]);
    }
}
