//! The broker's settings as text.

use std::path::Path;

use riverrun_broker::{
    Config,
    config::{format_duration, format_size, parse_duration, parse_size},
};

use crate::Taken;

pub(crate) fn run(input: &[u8]) -> Taken {
    let Ok(text) = std::str::from_utf8(input) else { return Taken::Refused };
    units(text);
    let path = Path::new("riverrun.toml");
    let config = match Config::from_toml(text, path) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().contains("riverrun.toml"), "the file is named: {error}");
            return Taken::Refused;
        }
    };
    let written = config.to_toml();
    let again = Config::from_toml(&written, path);
    assert_eq!(again.as_ref().ok(), Some(&config), "{written}");
    if let Err(error) = config.check() {
        assert!(!error.to_string().is_empty());
    }
    Taken::Accepted
}

fn units(text: &str) {
    if let Some(bytes) = parse_size(text) {
        assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
    }
    if let Some(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
    }
}
