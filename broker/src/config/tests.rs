use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("riverrun.toml"))
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let error = parse(text).expect_err("must be refused").to_string();
    assert!(error.contains(expected), "{error}\ndoes not contain\n{expected}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn what_is_shown_reads_back() {
    let mut config = Config { insecure: true, ..Config::default() };
    config.grpc.listen = "0.0.0.0:0".parse().unwrap();
    config.http.cors_origins = vec!["https://a.test".into(), "*".into()];
    config.webhooks.allow_networks =
        vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    config.limits.quota_wait = Duration::from_millis(1_500);
    config.disk.free_bytes_min = 3 << 20;
    config.traces.otlp_endpoint = "http://[::1]:4317".into();
    config.traces.sample_millionths = 1;
    config.data_dir = "/tmp/with \"quotes\"".into();
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn values_are_read_with_their_units() {
    let config = parse(
        "data_dir = \"/d\"\n[limits]\nfetch_bytes_max = \"2MiB\"\nquota_wait = \"50ms\"\n[threads]\nio = 3",
    )
    .unwrap();
    assert_eq!(config.limits.fetch_bytes_max, 2 << 20);
    assert_eq!(config.limits.quota_wait, Duration::from_millis(50));
    assert_eq!(config.threads.io, 3);
    let ratio = |text| parse(&format!("[traces]\nsample_ratio = {text}")).unwrap().traces;
    for (text, millionths) in [("1", 1_000_000), ("0", 0), ("0.25", 250_000), ("1e-6", 1)] {
        assert_eq!(ratio(text).sample_millionths, millionths, "{text}");
    }
}

#[test]
fn unknown_keys_are_refused_with_line_and_nearest_key() {
    check_refused(
        "\n\ndatadir = \"x\"",
        "riverrun.toml:3: unknown key `datadir`; did you mean `data_dir`?",
    );
    check_refused("[grpc]\nlisten_addr = 1", "riverrun.toml:2: unknown key `grpc.listen_addr`");
    check_refused("[grcp]\nlisten = \"127.0.0.1:1\"", "did you mean");
    check_refused("listen = \"127.0.0.1:1\"", "did you mean `grpc.listen`?");
    check_refused("zzzzzzzzzzzzzzzzzz = 1", "unknown key `zzzzzzzzzzzzzzzzzz`");
}

#[test]
fn every_key_mistyped_or_misplaced_is_refused_with_its_line_and_the_key_meant() {
    for known in reference::KEYS {
        let (table, name) = known.name.rsplit_once('.').unwrap_or(("", known.name));
        let header = if table.is_empty() { String::new() } else { format!("[{table}]") };
        let middle = name.len() / 2;
        let doubled = format!("{}x{}", &name[..middle], &name[middle..]);
        let dropped = format!("{}{}", &name[..middle], &name[middle + 1..]);
        for typed in [doubled, dropped, name.to_uppercase()] {
            let error = parse(&format!("# one\n{header}\n{typed} = 1")).expect_err(&typed);
            let ConfigError::UnknownKey { line, nearest, .. } = &error else { panic!("{error}") };
            assert_eq!(*line, 3, "{error}");
            if typed != name.to_uppercase() {
                assert_eq!(nearest.as_deref(), Some(known.name), "{error}");
            }
        }
    }
}

#[test]
fn wrong_values_are_refused_with_bounds_and_what_came() {
    check_refused(
        "[limits]\nfetch_bytes_max = \"2mb\"",
        "riverrun.toml:2: `limits.fetch_bytes_max` must be a size",
    );
    check_refused("[limits]\nfetch_bytes_max = 5", "found `5`");
    check_refused("[threads]\nflushers = 0", "a number from 1 to 256, found `0`");
    check_refused("[grpc]\nlisten = \"nowhere\"", "must be an address");
    check_refused("insecure = \"yes\"", "must be true or false");
    check_refused("[limits]\nquota_wait = \"10\"", "must be a duration");
    check_refused(
        "[webhooks]\nallow_networks = [\"10.0.0.0\"]",
        "`webhooks.allow_networks` must be a list of networks",
    );
    check_refused("grpc = 5", "grpc");
    for url in ["127.0.0.1:4317", "https://a:4317", "http://a", "http://a:1/v1", "http://u@a:1"] {
        let text = format!("[traces]\notlp_endpoint = \"{url}\"");
        check_refused(&text, "`traces.otlp_endpoint` must be empty, or http:// with host and port");
    }
    for ratio in ["-0.1", "1.5", "2", "nan", "\"1\""] {
        let text = format!("[traces]\nsample_ratio = {ratio}");
        check_refused(&text, "`traces.sample_ratio` must be a number from 0 to 1, found");
    }
    check_refused("[threads]\nio = 1.5", "a number from 0 to 1024, found `1.5`");
    check_refused("a = = 5", "riverrun.toml:1: not valid TOML");
}

#[test]
fn a_door_to_the_outside_must_be_acknowledged() {
    for (table, text) in [
        ("grpc", "riverrun.toml:2: `grpc.listen` is `0.0.0.0:7070`, which is not a loopback"),
        ("http", "riverrun.toml:2: `http.listen` is `0.0.0.0:7070`, which is not a loopback"),
    ] {
        let open = parse(&format!("[{table}]\nlisten = \"0.0.0.0:7070\"")).unwrap();
        let refused = open.check().unwrap_err().to_string();
        assert!(refused.starts_with(text) && refused.contains("insecure = true"), "{refused}");
    }
    let closed = parse("[http]\nenabled = false\nlisten = \"0.0.0.0:7070\"").unwrap();
    closed.check().unwrap();
    let mut config = Config::default();
    config.grpc.listen = "0.0.0.0:1".parse().unwrap();
    let refused = config.check().unwrap_err().to_string();
    assert!(refused.starts_with("`grpc.listen` is `0.0.0.0:1`"), "no file, no place: {refused}");
    let said = parse("insecure = true\n[grpc]\nlisten = \"0.0.0.0:7070\"").unwrap();
    said.check().unwrap();
    Config::default().check().unwrap();
}

#[test]
fn keys_that_contradict_each_other_are_named_with_values_and_places() {
    let cases = [
        (
            "[limits]\nin_flight_bytes_max = \"1MiB\"\n[grpc]\nmessage_bytes_max = \"2MiB\"",
            "riverrun.toml:2: `limits.in_flight_bytes_max` is `1MiB`, and must not be less than \
             another: riverrun.toml:4: `grpc.message_bytes_max` is `2MiB`",
        ),
        (
            "[limits]\nreceive_bytes_max = \"15MiB\"",
            "riverrun.toml:2: `limits.receive_bytes_max` is `15MiB`, and must not be less than \
             another: `grpc.message_bytes_max` is `16MiB`",
        ),
        (
            "[http]\nbody_bytes_max = \"32MiB\"\n[limits]\nreceive_bytes_max = \"20MiB\"",
            "riverrun.toml:4: `limits.receive_bytes_max` is `20MiB`, and must not be less than \
             another: riverrun.toml:2: `http.body_bytes_max` is `32MiB`",
        ),
    ];
    for (text, expected) in cases {
        let refused = parse(text).unwrap().check().unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
}

#[test]
fn sizes_and_durations_round_trip() {
    for text in ["1B", "1KiB", "1025B", "256MiB", "3GiB"] {
        assert_eq!(format_size(parse_size(text).unwrap()), text);
    }
    for text in ["1ms", "1500ms", "30s", "5m", "12h", "7d"] {
        assert_eq!(format_duration(parse_duration(text).unwrap()), text);
    }
    for bad in ["", "MiB", "1kb", "1 KB", "-1B", "99999999999GiB", "1.5MiB"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
}
