//! The key that requests bring to a server which asks for one. It comes in the environment, since anyone
//! on the machine can read a command line; and nothing but its header ever says it.

use std::fmt;

use anyhow::{Context, Result};
use http::HeaderValue;

/// The variable of the environment that holds it.
pub const VARIABLE: &str = "CORKBOARD_API_KEY";

/// As `corkboard keys add` shows it.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    pub fn new(text: &str) -> Result<Self> {
        // What is wrong with it is not said by showing it.
        let mut value = HeaderValue::from_str(text.trim()).ok().context("the key cannot stand in a header")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// None where the variable is not set, or empty.
    pub fn from_environment() -> Result<Option<Self>> {
        let text = match std::env::var(VARIABLE) {
            Ok(text) => text,
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => anyhow::bail!("{VARIABLE} is not UTF-8"),
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        Self::new(&text).context(VARIABLE).map(Some)
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let key = ApiKey::new(" CORKA.canary\n").expect("a key");
        assert_eq!(key.header(), "CORKA.canary");
        assert!(!format!("{key:?} {:?}", key.header()).contains("canary"));
        let error = format!("{:?}", ApiKey::new("canary\n.b").expect_err("a line break"));
        assert!(!error.contains("canary"), "{error}");
    }
}
