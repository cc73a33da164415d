//! Where the server of a bucket is and who we are to it: the usual `AWS_*` variables.

use std::fmt;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

/// Variables and their values.
#[derive(Clone, Default)]
pub struct Access(Vec<(String, String)>);

// === impl Access ===

impl Access {
    /// Those of this process.
    pub fn from_environment() -> Access {
        let variables = std::env::vars_os();
        Access::new(
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Those of them that say something about a bucket.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Access {
        Access(
            variables
                .into_iter()
                .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
                .collect(),
        )
    }

    pub(super) fn builder(&self) -> AmazonS3Builder {
        let known = |(name, value): &(String, String)| {
            Some((name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().ok()?, value.clone()))
        };
        let settings = self.0.iter().filter_map(known);
        settings.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
    }
}

/// Without the values: there are secrets among them.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_variables_are_read_and_secrets_are_not_shown() {
        let access = Access::new(
            [
                ("AWS_ENDPOINT_URL", "http://x"),
                ("AWS_SECRET_ACCESS_KEY", "hush"),
                ("AWS_REGION", ""),
                ("HOME", "/"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let shown = format!("{access:?}");
        assert!(
            shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hush") && !shown.contains("HOME")
        );
        let value = |key: AmazonS3ConfigKey| access.builder().get_config_value(&key);
        assert_eq!(value(AmazonS3ConfigKey::Endpoint).as_deref(), Some("http://x"));
        assert_eq!(value(AmazonS3ConfigKey::SecretAccessKey).as_deref(), Some("hush"));
    }
}
