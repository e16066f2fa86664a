//! Push subscriptions from the command line: printing, commands per record, operating them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use serde_json::Value;

use crate::support::{
    binary,
    process::{Broker, Done},
};

/// Longest wait for what is on its way.
const DEADLINE: Duration = Duration::from_secs(30);

fn broker_with_records(lines: &[u8]) -> Broker {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "2"]).ok();
    broker.run(&["produce", "t", "--partition", "0"], lines).ok();
    broker
}

#[track_caller]
fn json(done: Done) -> Value {
    serde_json::from_slice(&done.ok().stdout).unwrap()
}

/// Gets everything there is; the words printed, in order.
fn subscribe(broker: &Broker, arguments: &[&str]) -> String {
    let get = ["subscribe", "t", "--subscription", "s", "--no-follow"];
    let text = broker.call(&[&get[..], arguments].concat()).ok().text();
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.join(" ")
}

fn describe(broker: &Broker) -> Value {
    json(broker.call(&["subscription", "describe", "s", "-o", "json"]))
}

/// Waits until so many dead letters are written: they are on their way when the consumer has ended.
fn describe_dead(broker: &Broker, count: u64) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let described = describe(broker);
        if sum(&described, "dead") == count {
            return described;
        }
        assert!(Instant::now() < deadline, "no dead letter: {described}");
    }
}

fn sum(described: &Value, field: &str) -> u64 {
    let partitions = described["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition[field].as_u64().unwrap()).sum()
}

#[test]
fn what_was_printed_is_acknowledged_and_nothing_else() {
    let broker = broker_with_records(b"a\nb\nc\nd\n");
    assert_eq!(subscribe(&broker, &["--max", "3", "--format", "%p:%o:%v\\n"]), "0:0:a 0:1:b 0:2:c");
    let described = describe(&broker);
    assert_eq!((sum(&described, "floor"), sum(&described, "lag")), (3, 1));
    assert_eq!(subscribe(&broker, &[]), "d");
    assert_eq!(subscribe(&broker, &[]), "");
    broker.run(&["produce", "t", "--partition", "1"], b"e\n").ok();
    let line = json(broker.call(&["subscribe", "t", "-s", "s", "--no-follow", "-o", "json"]));
    assert_eq!((&line["value"], &line["partition"]), (&"e".into(), &1.into()));
    let list = json(broker.call(&["subscription", "list", "-o", "json"]));
    let one = &list["subscriptions"][0];
    assert_eq!((&one["subscription"], &one["lag"]), (&"s".into(), &0.into()));
}

#[test]
fn a_command_decides_by_how_it_ends() {
    let broker = broker_with_records(b"good\nbad\npoison\nfine\n");
    let create = ["subscription", "create", "s", "t", "--set", "backoff_min_ms=1h"];
    broker.call(&[&create[..], &["--set", "backoff_max_ms=1h"]].concat()).ok();
    let command = "read v; echo $RIVERRUN_OFFSET:$RIVERRUN_ATTEMPT:$v; case $v in \
                   bad) echo first >&2; echo no room >&2; exit 75;; \
                   poison) echo not a number >&2; exit 65;; esac";
    let printed = subscribe(&broker, &["--exec", command, "--concurrency", "2"]);
    assert_eq!(printed, "0:1:good 1:1:bad 2:1:poison 3:1:fine");
    let described = describe_dead(&broker, 1);
    assert_eq!((sum(&described, "retrying"), sum(&described, "in_flight")), (1, 0));
    assert_eq!(sum(&described, "lag"), 1);

    let peeked = json(broker.call(&["subscription", "peek", "s", "-o", "json"]));
    let record = &peeked["records"][0];
    assert_eq!((&record["state"], &record["value"]), (&"retry-wait".into(), &"bad".into()));
    assert_eq!((&record["failures"], &record["attempts"]), (&1.into(), &1.into()));
    let dead = broker.call(&["consume", "s.dead", "--no-follow", "--format", "%v %h"]).ok().text();
    assert!(dead.starts_with("poison ") && dead.contains("not a number"), "{dead}");

    let redrive = ["subscription", "redrive", "s"];
    let dry = broker.call(&[&redrive[..], &["--dry-run"]].concat()).ok().text();
    assert_eq!(dry, "1 dead letter would be brought back\n");
    broker.call(&redrive).refused(2, &["--yes"]);
    assert_eq!(
        broker.call(&[&redrive[..], &["--yes"]].concat()).ok().text(),
        "brought 1 dead letter back\n"
    );
    assert_eq!(subscribe(&broker, &[]), "poison");
    let again = broker.call(&[&redrive[..], &["--yes"]].concat()).ok().text();
    assert_eq!(again, "brought 0 dead letters back\n", "each only once");
}

#[test]
fn dead_letters_that_are_not_written_yet_are_counted_beside_the_others() {
    let large = "x".repeat(2_000);
    let broker = broker_with_records(large.as_bytes());
    // Too small for the letter.
    broker.call(&["topic", "create", "s.dead", "--set", "message_bytes_max=1024"]).ok();
    broker.call(&["subscribe", "t", "-s", "s", "--max", "1", "--exec", "exit 65"]).ok();
    let deadline = Instant::now() + DEADLINE;
    while sum(&describe(&broker), "dead_pending") == 0 {
        assert!(Instant::now() < deadline, "{}", describe(&broker));
    }
    let table = || broker.call(&["subscription", "describe", "s"]).ok().text();
    assert_eq!(table().matches("0 + 1 pending").count(), 2, "{}", table());
    broker.call(&["topic", "alter", "s.dead", "--set", "message_bytes_max=1048576"]).ok();
    describe_dead(&broker, 1);
    assert!(!table().contains("pending"), "{}", table());
}

#[test]
fn a_command_that_cannot_be_run_buries_nothing() {
    let broker = broker_with_records(b"a\nb\n");
    let get = ["subscribe", "t", "--subscription", "s", "--exec", "/no/such/command"];
    let done = broker.call(&get);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("riverrun: the command cannot be run"), "{}", done.stderr);
    assert_eq!(subscribe(&broker, &["--format", "%v\\n"]), "a b");
    assert_eq!(sum(&describe(&broker), "dead"), 0);
}

#[test]
fn an_empty_command_is_refused() {
    let broker = broker_with_records(b"a\n");
    let done = broker.call(&["subscribe", "t", "--subscription", "s", "--exec", " "]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stderr.contains("--exec") && done.stderr.contains("empty"), "{}", done.stderr);
    assert_eq!(subscribe(&broker, &[]), "a");
}

#[test]
fn a_command_that_leaves_somebody_behind_has_ended() {
    let broker = broker_with_records(b"a\n");
    // Longer than a test may take; it keeps the standard error of its command.
    let command = "echo said >&2; sleep 90 >/dev/null & exit 65";
    subscribe(&broker, &["--exec", command]);
    describe_dead(&broker, 1);
    let dead = broker.call(&["consume", "s.dead", "--no-follow", "--format", "%v %h"]).ok().text();
    assert!(dead.starts_with("a ") && dead.contains("said"), "{dead}");
}

#[test]
fn a_record_that_no_command_can_be_given_is_rejected_and_others_go_on() {
    let broker = broker_with_records(b"");
    let header = "h".repeat(200 << 10);
    let body = format!(
        r#"[{{"value":"a","headers":[{{"key":"h","value":"{header}"}}]}},{{"value":"b"}}]"#
    );
    let mut web = TcpStream::connect(&broker.web_address).unwrap();
    let head = "POST /v1/topics/t/records HTTP/1.1\r\nhost: localhost\r\nconnection: close";
    let rest = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    write!(web, "{head}\r\n{rest}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    web.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(subscribe(&broker, &["--exec", "cat; echo"]), "b");
    describe_dead(&broker, 1);
    let dead = broker.call(&["consume", "s.dead", "--no-follow", "--format", "%v %h"]).ok().text();
    assert!(dead.contains("environment of a command"), "{}", &dead[dead.len() - 500..]);
}

/// Waits until a record is in somebody's hands.
fn until_in_flight(broker: &Broker) {
    let deadline = Instant::now() + DEADLINE;
    while broker.call(&["subscription", "describe", "s"]).code != Some(0)
        || sum(&describe(broker), "in_flight") == 0
    {
        assert!(Instant::now() < deadline, "nothing was handed out");
    }
}

#[test]
fn an_interrupt_from_a_terminal_is_no_failure_of_the_command_that_runs() {
    let broker = broker_with_records(b"a\nb\n");
    let mut command = Command::new(binary::path());
    command.args(["subscribe", "t", "--subscription", "s", "--exec", "exec sleep 3"]);
    command.env("RIVERRUN_SERVER", &broker.address).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().unwrap();
    until_in_flight(&broker);
    // As a terminal does it.
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let described = describe(&broker);
    assert_eq!((sum(&described, "retrying"), sum(&described, "lag")), (0, 1), "{described}");
}

#[test]
fn whoever_interrupts_twice_does_not_wait_for_a_command_that_hangs() {
    let broker = broker_with_records(b"a\n");
    let command = ["subscribe", "t", "--subscription", "s", "--exec", "echo $$; exec sleep 90"];
    let mut child = broker.spawn(&command);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let of_command = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    until_in_flight(&broker);
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        thread::sleep(Duration::from_millis(100));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it waits for its command");
    };
    assert_eq!(status.code(), Some(1));
    let mut told = String::new();
    child.stderr.unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("ended while commands ran"), "{told}");
    while test_kill_process(of_command).is_ok() {
        assert!(Instant::now() < deadline, "the command runs on");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(subscribe(&broker, &[]), "a");
}

#[test]
fn records_of_a_key_come_in_order_also_when_one_fails() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t", "--partitions", "1"]).ok();
    let lines = b"x:1\ny:1\nx:2\ny:2\n";
    broker.run(&["produce", "t", "--key-separator", ":"], lines).ok();
    let create = ["subscription", "create", "s", "t", "--mode", "key-fifo"];
    broker
        .call(
            &[&create[..], &["--set", "backoff_min_ms=1h", "--set", "backoff_max_ms=1h"]].concat(),
        )
        .ok();
    let command = "read v; echo $RIVERRUN_KEY$v; test $RIVERRUN_KEY = y";
    // `x` fails at its first record, so its second is not tried; `y` goes on.
    assert_eq!(subscribe(&broker, &["--exec", command]), "x1 y1 y2");
    let described = describe(&broker);
    assert_eq!((sum(&described, "retrying"), sum(&described, "blocked")), (1, 1));
    let wrong = ["subscribe", "t", "-s", "s", "--mode", "exclusive"];
    broker.call(&wrong).refused(4, &["key-fifo", "exclusive"]);
}

#[test]
fn a_subscription_is_moved_paused_changed_and_deleted() {
    let broker = broker_with_records(b"a\nb\nc\n");
    assert_eq!(subscribe(&broker, &[]), "a b c");
    let seek = ["subscription", "seek", "s", "--topic", "t:0", "--to-offset", "1"];
    let dry = json(broker.call(&[&seek[..], &["--dry-run", "-o", "json"]].concat()));
    assert_eq!(dry["partitions"][0]["to_offset"], 1);
    assert_eq!(sum(&describe(&broker), "lag"), 0, "a dry run changes nothing");
    broker.call(&seek).refused(2, &["--yes"]);
    broker.call(&[&seek[..], &["--yes"]].concat()).ok();

    for (target, moved_to) in [
        (["--to-time", "2100-01-01"], 3),
        (["--by-duration", "1h"], 0),
        (["--to-time", "2100-01-01"], 3),
        (["--to-offset", "1"], 1),
    ] {
        let seek = [&seek[..5], &target[..], &["--yes", "-o", "json"]].concat();
        let moved = json(broker.call(&seek));
        assert_eq!(moved["partitions"][0]["to_offset"], moved_to, "{target:?}");
    }

    broker.call(&["subscription", "pause", "s"]).ok();
    let paused = broker.call(&["subscribe", "t", "-s", "s", "--no-follow"]).ok();
    assert!(paused.text().is_empty());
    let why = json(broker.call(&["subscription", "explain", "s", "-o", "json"]));
    assert_eq!(why["partitions"][0]["reason"], "paused");
    broker.call(&["subscription", "resume", "s"]).ok();
    assert_eq!(subscribe(&broker, &[]), "b c");

    broker.call(&["subscription", "alter", "s"]).refused(2, &["nothing to change"]);
    let wrong = ["subscription", "alter", "s", "--set", "max_failure=3"];
    broker.call(&wrong).refused(2, &["did you mean `max_failures`?"]);
    broker.call(&["subscription", "alter", "s", "--set", "max_failures=3"]).ok();
    assert_eq!(describe(&broker)["settings"]["max_failures"], 3);
    let table = broker.call(&["subscription", "describe", "s"]).ok().text();
    for part in ["SUBSCRIPTION", "OLDEST UNACKED", "FLOOR  END  LAG", "s.dead", "WHY-IDLE"] {
        assert!(table.contains(part), "{part} is missing in\n{table}");
    }

    broker.call(&["subscription", "delete", "s", "--dry-run"]).ok();
    broker.call(&["subscription", "delete", "s"]).refused(2, &["--yes"]);
    broker.call(&["subscription", "delete", "s", "--yes"]).ok();
    broker.call(&["subscription", "describe", "s"]).refused(4, &["subscription list"]);
}

#[test]
fn a_session_is_described_with_the_credit_it_was_told_to_give() {
    let broker = broker_with_records(b"");
    let create = ["subscription", "create", "s", "t"];
    broker.call(&create).ok();
    let mut subscriber = broker.spawn(&["subscribe", "t", "-s", "s", "--credit", "7"]);
    let deadline = Instant::now() + DEADLINE;
    let session = loop {
        let described = describe(&broker);
        let session = described["sessions"][0].clone();
        if session["credit_records"] == 7 {
            break session;
        }
        assert!(Instant::now() < deadline, "no such session: {described}");
    };
    let table = broker.call(&["subscription", "describe", "s"]).ok().text();
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
    assert_eq!((&session["in_flight"], &session["delivered"]), (&0.into(), &0.into()));
    let cells = |line: &'_ str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let lines: Vec<Vec<String>> = table.lines().map(cells).collect();
    let heading = lines.iter().position(|line| line.first().is_some_and(|it| it == "SESSION"));
    let heading = heading.expect("the table of sessions");
    let cell = |name: &str| {
        let column = lines[heading].iter().position(|cell| cell == name);
        lines[heading + 1][column.expect(name)].as_str()
    };
    assert_eq!(cell("SESSION"), session["session_id"].as_str().unwrap());
    assert_eq!((cell("CREDIT"), cell("CREDIT-BYTES")), ("7", "8.0 MiB"), "{table}");
    assert_eq!((cell("IN-FLIGHT"), cell("DELIVERED"), cell("STATE")), ("0", "0", "open"));
}

#[test]
fn a_scheduled_record_waits_for_its_time_and_can_be_cancelled() {
    let broker = broker_with_records(b"now\n");
    let later = ["produce", "t", "--partition", "0", "--deliver-after", "1h"];
    broker.run(&later, b"later\n").ok();
    let past = ["produce", "t", "--partition", "0", "--deliver-at", "2020-01-01"];
    broker.run(&past, b"past\n").ok();
    assert_eq!(subscribe(&broker, &[]), "now past");
    assert_eq!(sum(&describe(&broker), "scheduled"), 1);
    let pulled = broker.call(&["consume", "t", "--no-follow"]).ok().text();
    assert!(pulled.contains("later"), "who pulls sees it: {pulled}");
    broker.call(&["schedule", "cancel", "t", "0", "1"]).ok();
    assert_eq!((sum(&describe(&broker), "scheduled"), sum(&describe(&broker), "lag")), (0, 0));
    broker.call(&["schedule", "cancel", "t", "0", "2"]).refused(4, &["too late"]);
    broker.call(&["schedule", "cancel", "t", "0", "0"]).refused(4, &["riverrun-deliver-at"]);
}

#[test]
fn a_webhook_is_set_shown_without_its_secrets_and_taken_away() {
    let broker = broker_with_records(b"a\n");
    let secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";
    let create = ["subscription", "create", "s", "t", "--webhook-url", "http://127.0.0.1:9/"];
    let more = ["--webhook-secrets", "-", "--webhook-timeout", "2s", "--webhook-concurrency", "3"];
    broker.run(&[&create[..], &more].concat(), secret.as_bytes()).ok();
    let deadline = Instant::now() + DEADLINE;
    let described = loop {
        let described = describe(&broker);
        if described["webhook"]["failed"] != 0 {
            break described;
        }
        assert!(Instant::now() < deadline, "not tried: {described}");
    };
    let failure = described["webhook"]["last_failure"].as_str().unwrap();
    assert!(failure.contains("is loopback") && failure.contains("allow_networks"), "{failure}");
    let webhook = &described["settings"]["webhook"];
    assert_eq!((&webhook["secret_count"], &webhook["timeout_ms"]), (&1.into(), &2_000.into()));
    let shown = broker.call(&["subscription", "describe", "s"]).ok().text();
    for part in ["webhook_url", "http://127.0.0.1:9/", "1 set", "failed", "webhook_concurrency"] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    let told = format!("{described}{shown}{}", broker.stderr());
    assert!(!told.contains("MDEyMzQ1"), "{told}");
    let wrong = ["subscription", "alter", "s", "--webhook-secrets", "-"];
    let refused = broker.run(&wrong, b"hunter2\n").refused(4, &["settings.webhook.secrets"]);
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    broker.call(&["subscription", "alter", "s", "--no-webhook"]).ok();
    assert_eq!(describe(&broker)["webhook"], Value::Null);
}
