//! Certificates of authorities, from the files that the settings name.

use std::path::Path;

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{ConfigError, WebhooksConfig};

impl WebhooksConfig {
    /// The certificates in `ca_files`.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else or nothing.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let mut all = Vec::new();
        for path in self.ca_files.iter().map(Path::new) {
            #[expect(clippy::disallowed_methods, reason = "a file that the settings name")]
            let pem = std::fs::read(path)
                .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
            let invalid = |reason: String| ConfigError::Certificates { path: path.into(), reason };
            let before = all.len();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                all.push(certificate.map_err(|error| invalid(error.to_string()))?);
            }
            if all.len() == before {
                return Err(invalid("there is no certificate in it".to_owned()));
            }
        }
        Ok(all)
    }
}
