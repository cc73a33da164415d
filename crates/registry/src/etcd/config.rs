//! Where etcd is, and who we are to it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::store::{Error, Result};

/// etcd closes a connection that is pinged more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Enough for any name that a person gives to a cluster.
const MAX_CLUSTER_BYTES: usize = 64;

#[derive(Clone)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`; `http` where nothing is said.
    pub endpoints: Vec<String>,
    /// All keys lie under `/caravan/<cluster>/`.
    pub cluster: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// PEM files.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Of one request. Short, because a lease has to be renewed several times in its life.
    pub request_timeout: Duration,
    /// How long `connect` waits for etcd to answer.
    pub connect_timeout: Duration,
}

// === impl EtcdConfig ===

impl EtcdConfig {
    pub fn new(endpoints: Vec<String>, cluster: impl Into<String>) -> EtcdConfig {
        EtcdConfig {
            endpoints,
            cluster: cluster.into(),
            user: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
            request_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(30),
        }
    }

    pub(super) fn prefix(&self) -> Result<String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = &self.cluster;
        if name.is_empty() || name.len() > MAX_CLUSTER_BYTES || !name.chars().all(is_plain) {
            return Err(Error::Invalid(format!(
                "`cluster` must be 1 to {MAX_CLUSTER_BYTES} letters, digits, `-`, `_` or `.`, got `{name}`"
            )));
        }
        Ok(format!("/caravan/{name}/"))
    }

    pub(super) async fn options(&self) -> Result<ConnectOptions> {
        if self.endpoints.is_empty() {
            return Err(Error::Invalid("`etcd` must name at least one endpoint".into()));
        }
        for endpoint in &self.endpoints {
            let parsed = tonic::transport::Endpoint::from_shared(endpoint.clone());
            parsed.map_err(|error| Error::Invalid(format!("etcd endpoint `{endpoint}`: {error}")))?;
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.request_timeout)
            .with_keep_alive(PING_EVERY, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            // A member without a leader then ends its watches instead of keeping silent.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => options = options.with_user(user, password),
            (None, None) => {}
            _ => return Err(Error::Invalid("etcd's `user` and `password` need each other".into())),
        }
        if let Some(tls) = self.tls().await? {
            options = options.with_tls(tls);
        }
        Ok(options)
    }

    async fn tls(&self) -> Result<Option<TlsOptions>> {
        let is_secure = self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let is_plain = self.endpoints.iter().any(|endpoint| !endpoint.starts_with("https://"));
        let has_files = self.ca.is_some() || self.cert.is_some() || self.key.is_some();
        if has_files && is_plain {
            return Err(Error::Invalid("etcd's `ca`, `cert` and `key` need `https://` endpoints".into()));
        }
        if !is_secure {
            return Ok(None);
        }
        let Some(ca) = &self.ca else {
            return Err(Error::Invalid(
                "an `https://` etcd endpoint needs `ca`, the file of its authority".into(),
            ));
        };
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read("ca", ca).await?));
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                tls = tls.identity(Identity::from_pem(read("cert", cert).await?, read("key", key).await?));
            }
            (None, None) => {}
            _ => return Err(Error::Invalid("etcd's `cert` and `key` need each other".into())),
        }
        Ok(Some(tls))
    }
}

async fn read(field: &str, path: &Path) -> Result<Vec<u8>> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| Error::Invalid(format!("etcd's `{field}` file `{}`: {error}", path.display())))
}
