//! `riverrun serve`: how it starts, refuses to start, ends, and comes back.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use prost::Message;
use riverrun_proto::grpc::state::v1::{MetadataSnapshot, TopicCreated};
use uuid::Uuid;

use crate::support::{
    binary,
    broker::TestBroker,
    process::{Broker, run, write_file},
};

#[test]
fn records_and_offsets_outlive_a_kill() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "2"]).ok();
    broker.run(&["produce", "t", "-p", "1"], b"a\nb\nc\n").ok();
    let read = ["consume", "t", "--group", "g", "--no-follow", "--max", "2"];
    assert_eq!(broker.call(&read).ok().text(), "a\nb\n");
    broker.kill();
    broker.restart();
    assert_eq!(broker.call(&["consume", "t", "--group", "g", "--no-follow"]).ok().text(), "c\n");
    assert_eq!(broker.call(&["consume", "t", "--no-follow"]).ok().text(), "a\nb\nc\n");
}

#[test]
fn a_start_after_a_kill_says_what_it_took_in_one_line() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "20"]).ok();
    broker.run(&["produce", "t", "-p", "1"], b"a\n").ok();
    broker.stop();
    broker.restart();
    assert!(!broker.stderr().contains("logs opened"), "nothing after a clean stop");
    broker.run(&["produce", "t", "-p", "1"], b"b\n").ok();
    broker.kill();
    broker.restart();
    let told = broker.stderr();
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("logs/")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    for part in ["INFO", "logs opened after an unclean stop", "opened=23", "slowest="] {
        assert!(lines[0].contains(part), "`{part}` is missing in {lines:?}");
    }
    assert!(!lines[0].contains("recovered=0"), "{lines:?}");
}

#[test]
fn a_polite_stop_ends_well_and_loses_nothing() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    broker.run(&["produce", "t"], b"a\n").ok();
    assert!(broker.stop().success(), "{}", broker.stderr());
    broker.restart();
    assert_eq!(broker.call(&["consume", "t", "--no-follow"]).ok().text(), "a\n");
}

#[test]
fn a_data_directory_in_memory_is_not_said_to_survive_a_power_cut() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut child = Command::new(binary::path())
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(home.path().join("data"))
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = told.find(|line| line.contains("durability"));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let caveat = "tmpfs is memory: nothing survives a power cut";
    assert!(line.as_ref().is_some_and(|line| line.contains(caveat)), "{line:?} {errors}");
    let warning = errors.lines().find(|line| line.contains(caveat)).expect("a warning");
    assert!(warning.contains("WARN"), "{warning}");
}

#[test]
fn a_data_directory_has_one_broker() {
    let broker = Broker::start();
    let data_dir = broker.data_dir();
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    run(&arguments, b"").refused(1, &[data_dir.to_str().unwrap(), "process"]);
    broker.call(&["topic", "list"]).ok();
}

/// A broker of this program on `data_dir` that may have so many files open, run to its end.
fn serve_with_files(data_dir: &Path, files: u32) -> Output {
    Command::new("sh")
        .args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")])
        .arg(binary::path())
        .args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .output()
        .unwrap()
}

#[test]
fn partitions_are_refused_before_open_files_run_out() {
    let mut broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "60"]).ok();
    // Enough for (400 - 128) / 2 partitions.
    broker.limit_files(400);
    let limit = "`partitions by the limit of open files (LimitNOFILE)` of 136 is used up";
    // A quota may be given back, so the client asks again until its time is over.
    let refused = |call: &[&str]| {
        broker.call(&[call, &["--timeout", "1s"]].concat()).refused(4, &[limit]);
    };
    refused(&["topic", "create", "u", "--partitions", "77"]);
    refused(&["topic", "alter", "t", "--partitions", "137"]);
    broker.call(&["topic", "create", "u", "--partitions", "76"]).ok();
    refused(&["topic", "create", "v"]);
    // All of them are written: none lacks a file.
    let lines: String = (0..2_000).map(|number| format!("{number}:x\n")).collect();
    for topic in ["t", "u"] {
        broker.run(&["produce", topic, "-k", ":"], lines.as_bytes()).ok();
        let read = broker.call(&["consume", topic, "--no-follow"]).ok().text();
        assert_eq!(read.lines().count(), 2_000);
    }
    broker.kill();
    let refused = serve_with_files(&broker.data_dir(), 200);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let need =
        "136 partitions need at least 264 open files, and the system lets this process have 200";
    assert!(told.contains(need) && told.contains("LimitNOFILE"), "{told}");
    broker.restart();
    broker.call(&["topic", "create", "v"]).ok();
    for topic in ["t", "u"] {
        let read = broker.call(&["consume", topic, "--no-follow"]).ok().text();
        assert_eq!(read.lines().count(), 2_000, "nothing is lost by a refused start");
    }
}

#[tokio::test]
async fn a_hundred_thousand_topics_in_too_few_files_are_refused_by_name_and_left_as_they_are() {
    const TOPICS: u128 = 100_000;
    let broker = TestBroker::start().await;
    // As the log of topics has them once they are made; their directories would take an hour.
    let created = |number: u128| TopicCreated {
        topic_id: Uuid::from_u128(number + (1 << 64)).into_bytes().to_vec().into(),
        topic: format!("topic-{number}"),
        partitions: 1,
        ..TopicCreated::default()
    };
    let topics = (0..TOPICS).map(created).collect();
    let whole = MetadataSnapshot { topics, ..MetadataSnapshot::default() }.encode_to_vec();
    broker.inside().registry().log().snapshot(|| vec![whole.into()]).await.unwrap();
    let dir = broker.stop().await.unwrap();
    let data_dir = dir.path().join("data");
    let before = listing(&data_dir);

    let refused = serve_with_files(&data_dir, 1_000);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let need = "100000 partitions need at least 100128 open files, and the system lets this process have 1000";
    assert!(told.contains(need) && told.contains("LimitNOFILE"), "{told}");
    assert_eq!(listing(&data_dir), before);
}

/// Every file below a directory, with its length.
fn listing(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let found = entry.metadata().unwrap();
            if found.is_dir() {
                open.push(entry.path());
            } else {
                files.insert(entry.path(), found.len());
            }
        }
    }
    files
}

#[test]
fn a_port_in_use_is_named() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let arguments =
        ["serve", "--listen", &broker.address, "--data-dir", data_dir.to_str().unwrap()];
    run(&arguments, b"").refused(1, &[&broker.address, "in use", "--listen"]);
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        &broker.web_address,
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    run(&arguments, b"").refused(1, &[&broker.web_address, "in use", "--http-listen"]);
}

#[test]
fn an_open_door_must_be_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    run(&["serve", "--listen", "0.0.0.0:0", "--data-dir", data_dir.to_str().unwrap()], b"")
        .refused(2, &["grpc.listen", "0.0.0.0:0", "insecure"]);
    run(&["serve", "--http-listen", "0.0.0.0:0", "--data-dir", data_dir.to_str().unwrap()], b"")
        .refused(2, &["http.listen", "0.0.0.0:0", "insecure"]);
    assert!(!data_dir.exists(), "nothing is made before the settings are in order");
}

#[test]
fn an_open_door_is_said_to_be_one() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary::path())
        .args(["serve", "--listen", "0.0.0.0:0", "--http-listen", "127.0.0.1:0", "--insecure"])
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<String> = told.take(6).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.iter().any(|line| line.starts_with("  INSECURE ")), "{told:#?}");
}

#[test]
fn a_data_directory_whose_parent_is_missing_is_refused_by_its_path() {
    let home = tempfile::tempdir().unwrap();
    let data_dir = home.path().join("misspelt").join("data");
    let path = data_dir.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let serve = [&["serve", "--data-dir", path][..], &listen].concat();
    run(&serve, b"").refused(1, &[path, "No such file"]);
    assert!(!home.path().join("misspelt").exists(), "nothing is made");
}

#[test]
fn settings_come_from_the_file_and_the_command_line_wins() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = write_file(folder.path(), "wrong.toml", b"durability = \"os\"\n");
    run(&["serve", "--config", &wrong], b"").refused(2, &["wrong.toml:1", "`durability`"]);
    let open = write_file(folder.path(), "open.toml", b"[grpc]\nlisten = \"0.0.0.0:0\"\n");
    let data_dir = folder.path().join("file");
    std::fs::write(&data_dir, b"not a directory").unwrap();
    let arguments = [
        "serve",
        "--config",
        &open,
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    run(&arguments, b"").refused(1, &[data_dir.to_str().unwrap()]);
}
