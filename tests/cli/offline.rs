//! Commands and mistakes that need no broker.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use tokio::{net::TcpListener as AsyncListener, task::block_in_place};

use crate::{
    support::{
        binary,
        process::{run, write_file},
        receiver::{Receiver, status},
    },
    webhooks::tls::acceptor,
};

/// A port nobody listens on: bound once and given back.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(&["--help"], b"").ok();
    for part in ["serve", "produce", "consume", "Exit codes:", "--server"] {
        assert!(help.text().contains(part), "{part}");
    }
    assert!(run(&["--version"], b"").ok().text().starts_with("riverrun 0."));
}

#[test]
fn wrong_usage_ends_with_2() {
    let cases: [(&[&str], &str); 9] = [
        (&[], "Usage"),
        (&["produse", "orders"], "unrecognized subcommand"),
        (&["topic", "list", "--colour"], "--colour"),
        (&["produce"], "<TOPIC>"),
        (&["produce", "orders", "--acks", "some"], "all"),
        (&["produce", "orders", "--key-separator", ""], "must not be empty"),
        (&["consume", "orders", "--from", "yesterday"], "earliest, latest, offset:N or time:T"),
        (&["consume", "orders", "--format", "%q"], "%v or %s value"),
        (&["group", "reset", "billing"], "--to-earliest"),
    ];
    for (arguments, part) in cases {
        let done = run(arguments, b"");
        assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(part), "{arguments:?}: {}", done.stderr);
        assert!(done.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn wrong_settings_are_refused_before_anything_is_tried() {
    run(&["topic", "create", "orders", "--set", "durabilty=os"], b"")
        .refused(2, &["did you mean `durability`?"]);
    run(&["topic", "create", "orders", "--set", "durability=maybe"], b"")
        .refused(2, &["os, interval and fsync"]);
    run(&["topic", "alter", "orders"], b"").refused(2, &["nothing to change"]);
    run(&["group", "reset", "g", "--to-time", "noon"], b"").refused(2, &["`noon` is not a time"]);
    run(&["consume", "orders", "--group", "g", "--from", "offset:3"], b"")
        .refused(2, &["`--from offset:N` is not for a group", "group reset --to-offset"]);
}

#[test]
fn a_broker_that_is_not_there_ends_with_3() {
    let address = free_address();
    let commands: [&[&str]; 6] = [
        &["topic", "list"],
        &["topic", "create", "orders"],
        &["produce", "orders"],
        &["consume", "orders"],
        &["watch", "orders"],
        &["group", "describe", "billing"],
    ];
    for command in commands {
        let arguments = [command, &["--server", &address]].concat();
        run(&arguments, b"line\n").refused(3, &[&address, "connection refused", "riverrun serve"]);
    }
}

#[test]
fn what_chooses_a_broker_is_offered_and_taken_only_where_one_is_talked_to() {
    for command in [&["serve"][..], &["log", "verify"], &["config", "show"], &["completions"]] {
        let help = run(&[command, &["--help"]].concat(), b"").ok().text();
        assert!(!help.contains("--server") && !help.contains("--timeout"), "{command:?}: {help}");
    }
    let help = run(&["topic", "list", "--help"], b"").ok().text();
    assert!(help.contains("--server") && help.contains("--timeout"), "{help}");
    for given in [["--server", "127.0.0.1:1"], ["--timeout", "1s"]] {
        let part = format!("`{}` is not for `config`", given[0]);
        run(&[&["config", "show"][..], &given].concat(), b"").refused(2, &[&part]);
        run(&[&given[..], &["config", "show"]].concat(), b"").refused(2, &[&part]);
    }
    run(&["serve", "--server", "127.0.0.1:1"], b"").refused(2, &["`--server` is not for `serve`"]);
}

#[test]
fn a_timeout_has_bounds() {
    for (given, told) in [("99999999999d", "at most 30d"), ("0s", "more than 0")] {
        let done = run(&["--server", "127.0.0.1:1", "--timeout", given, "topic", "list"], b"");
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains(told) && done.stderr.contains("--timeout"), "{done:?}");
    }
}

#[test]
fn an_address_that_is_none_ends_with_2() {
    run(&["topic", "list", "--server", "localhost:port"], b"")
        .refused(2, &["`--server localhost:port`"]);
}

#[test]
fn an_unreadable_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.txt");
    let missing = missing.to_str().unwrap();
    run(&["produce", "orders", missing], b"").refused(1, &[missing, "No such file"]);
    let directory = folder.path().to_str().unwrap();
    run(&["produce", "orders", directory], b"").refused(1, &[directory, "directory"]);
}

#[test]
fn settings_files_are_checked_with_line_and_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    let wrong =
        write_file(folder.path(), "wrong.toml", b"[grpc]\nlisten_adress = \"127.0.0.1:1\"\n");
    run(&["config", "check", &wrong], b"").refused(2, &["wrong.toml:2", "`grpc.listen_adress`"]);
    let open = write_file(folder.path(), "open.toml", b"[grpc]\nlisten = \"0.0.0.0:7070\"\n");
    run(&["config", "check", &open], b"").refused(2, &["insecure"]);
    let good = write_file(folder.path(), "good.toml", b"data_dir = \"/tmp/x\"\n");
    assert!(run(&["config", "check", &good], b"").ok().text().contains("in order"));
    let latin = write_file(folder.path(), "latin.toml", b"[grpc]\n# f\xc3\xbcr\n# gr\xfcn\n");
    for command in [&["config", "check"][..], &["config", "show", "--config"], &["serve", "-c"]] {
        let done = run(&[command, &[&latin]].concat(), b"");
        done.refused(2, &["latin.toml:3", "byte 0xfc at column 5 is no UTF-8"]);
    }
    let missing = folder.path().join("none.toml");
    run(&["config", "check", missing.to_str().unwrap()], b"").refused(1, &["none.toml"]);
}

#[test]
fn shown_settings_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let shown = run(&["config", "show"], b"").ok();
    let path = write_file(folder.path(), "shown.toml", &shown.stdout);
    let again = run(&["config", "show", "--config", &path], b"").ok();
    assert_eq!(shown.text(), again.text());
    let json = run(&["config", "show", "--output", "json"], b"").ok();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["data_dir"], "./riverrun-data");
    assert_eq!(json["grpc"]["message_bytes_max"], "16MiB");
    assert_eq!(json["limits"]["topics_max"], 10_000);
    let of_json = json.as_object().unwrap().values().flat_map(|table| table.as_object());
    let in_tables = shown.text().lines().filter(|line| line.contains(" = ")).count() - 2;
    assert_eq!(of_json.map(serde_json::Map::len).sum::<usize>(), in_tables, "every key");
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell], b"").ok().text().contains("riverrun"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    run(&["man", pages.to_str().unwrap()], b"").ok();
    let page = std::fs::read_to_string(pages.join("riverrun-produce.1")).unwrap();
    assert!(page.contains("key\\-separator"), "{page}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(binary::path())
        .arg("markdown-help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    // The output is larger than what is read, and the pipe is closed behind it.
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(stderr, "");
}

/// Something that listens and does `with` each connection in turn, until the test ends.
fn listener(with: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(with));
    address
}

#[test]
fn what_is_no_broker_is_told_from_one() {
    let web = listener(|mut stream| {
        let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).ok();
    });
    let echo = listener(|stream| {
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    });
    let closes = listener(drop);
    for (address, part) in [(web, "speaks HTTP/1"), (echo, "--server"), (closes, "--server")] {
        let done = run(&["topic", "list", "--server", &address], b"");
        done.refused(3, &[&address, part, "--server"]);
    }
    let hangs = listener(std::mem::forget);
    let done = run(&["topic", "list", "--server", &hangs, "--timeout", "300ms"], b"");
    done.refused(3, &[&hangs, "did not answer within 300 ms", "--timeout"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls_is_named_as_one() {
    let secure = Receiver::start_tls(acceptor(), |_| status(200)).await;
    let address = format!("127.0.0.1:{}", secure.address.port());
    let commands: [&[&str]; 4] = [
        &["topic", "list"],
        &["produce", "orders"],
        &["consume", "orders"],
        &["subscribe", "t", "-s", "s"],
    ];
    for command in commands {
        let arguments = [command, &["--server", &address]].concat();
        let done = block_in_place(|| run(&arguments, b"line\n"));
        done.refused(3, &[&address, "speaks TLS", "--server"]);
    }
    assert!(secure.came().is_empty(), "a request over TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls_and_keeps_the_connection_is_named_at_once() {
    let listener = AsyncListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let mut failed = acceptor().accept(stream).into_fallible().await.unwrap_err().1;
            // The alert is out; the socket stays open.
            tokio::io::AsyncWriteExt::flush(&mut failed).await.ok();
            kept.push(failed);
        }
    });
    let done = block_in_place(|| run(&["topic", "list", "--server", &address], b""));
    done.refused(3, &[&address, "speaks TLS"]);
    server.abort();
}
