//! Whether this program exports spans of calls: where it is built with the feature `otlp`, and the settings name a collector.

use riverrun_broker::{
    config::{Config, ConfigError},
    traces::Traces,
};

#[cfg(feature = "otlp")]
use super::otlp::Exporter;
use crate::{config, failure::Failure};

/// Refuses a collector that this program cannot send to.
pub(crate) fn check(settings: &Config) -> Result<(), Failure> {
    if cfg!(feature = "otlp") || settings.traces.otlp_endpoint.is_empty() {
        return Ok(());
    }
    let (key, feature) = ("traces.otlp_endpoint", "otlp");
    Err(config::refused(&ConfigError::NotBuilt { key, feature }))
}

/// What exports the spans of a broker, or nothing.
#[derive(Debug)]
pub(crate) struct Exporting {
    #[cfg(feature = "otlp")]
    exporter: Option<Exporter>,
}

impl Exporting {
    /// Begins to export where the settings name a collector; they were checked.
    pub(crate) fn start(settings: &Config) -> Result<Exporting, Failure> {
        check(settings)?;
        #[cfg(feature = "otlp")]
        let is_asked = !settings.traces.otlp_endpoint.is_empty();
        Ok(Exporting {
            #[cfg(feature = "otlp")]
            exporter: is_asked.then(|| Exporter::start(&settings.traces)).transpose()?,
        })
    }

    /// What a broker begins spans with.
    pub(crate) fn traces(&self) -> Traces {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            return exporter.traces();
        }
        Traces::default()
    }

    /// Lets the last spans go, once no broker runs.
    pub(crate) fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.end();
        }
    }
}

#[cfg(all(test, not(feature = "otlp")))]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_nobody_would_send_to_is_refused_by_key_and_feature() {
        let mut settings = Config::default();
        check(&settings).unwrap();
        settings.traces.otlp_endpoint = "http://127.0.0.1:4317".into();
        for refused in [check(&settings).err(), Exporting::start(&settings).err()] {
            let refused = refused.expect("refused").to_string();
            assert!(refused.contains("`traces.otlp_endpoint`"), "{refused}");
            assert!(refused.contains("feature `otlp`"), "{refused}");
        }
    }
}
