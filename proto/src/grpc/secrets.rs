//! Messages that hold secrets are never written out, not even to a log line at `DEBUG`.

use std::fmt;

use super::v1::WebhookSecrets;

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSecrets").field("count", &self.secrets.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_the_text_of_its_message() {
        let secrets = WebhookSecrets { secrets: vec!["whsec_c2VjcmV0".into()] };
        assert_eq!(format!("{secrets:?}"), "WebhookSecrets { count: 1, .. }");
    }
}
