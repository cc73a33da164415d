//! A real etcd for one test: started on free ports with its data in a temporary folder, killed and restarted at
//! will, gone at the end.

use std::{
    env,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::Client;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{Etcd, EtcdConfig, store};

/// Names the binary where it is not on the `PATH`.
const BIN_VARIABLE: &str = "CARAVAN_ETCD_BIN";

/// A cold start takes below a second; a busy machine may take longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A free port may be taken by somebody else before etcd has it.
const PORT_ATTEMPTS: u32 = 5;

/// A one-member etcd needs no second to elect itself, and grants shorter leases with a shorter election: 1 s.
const TIMING: [&str; 4] = ["--heartbeat-interval", "10", "--election-timeout", "100"];

/// Killed when dropped.
pub struct EtcdServer {
    binary: PathBuf,
    folder: TempDir,
    client: SocketAddr,
    peer: SocketAddr,
    /// With `ca.pem`, `server.pem` and `server-key.pem`.
    certs: Option<PathBuf>,
    child: Option<Child>,
}

/// Why there is no etcd, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

// === impl EtcdServer ===

impl EtcdServer {
    pub async fn start() -> Result<EtcdServer, StartError> {
        EtcdServer::start_on_free_ports(None).await
    }

    /// One that speaks TLS only, to clients with a certificate only. The folder holds `ca.pem`, and for server and
    /// client `server.pem`, `server-key.pem`, `client.pem` and `client-key.pem`.
    pub async fn start_with_certs(folder: &Path) -> Result<EtcdServer, StartError> {
        EtcdServer::start_on_free_ports(Some(folder.to_owned())).await
    }

    async fn start_on_free_ports(certs: Option<PathBuf>) -> Result<EtcdServer, StartError> {
        let binary = find_binary()?;
        let mut attempts = 0;
        loop {
            let folder =
                tempfile::tempdir().map_err(|error| StartError(format!("temporary folder: {error}")))?;
            let (client, peer) = (free_address()?, free_address()?);
            let (binary, certs) = (binary.clone(), certs.clone());
            let mut server = EtcdServer { binary, folder, client, peer, certs, child: None };
            attempts += 1;
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) if error.0.contains("address already in use") && attempts < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `host:port`, the same after a restart.
    pub fn address(&self) -> String {
        self.client.to_string()
    }

    /// What `--etcd` takes.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.client)
    }

    pub fn config(&self, cluster: &str) -> EtcdConfig {
        let config = EtcdConfig::new(vec![self.endpoint()], cluster);
        let Some(certs) = &self.certs else { return config };
        let (cert, key) = (certs.join("client.pem"), certs.join("client-key.pem"));
        EtcdConfig { ca: Some(certs.join("ca.pem")), cert: Some(cert), key: Some(key), ..config }
    }

    pub async fn connect(&self, cluster: &str) -> store::Result<Etcd> {
        Etcd::connect(&self.config(cluster)).await
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("etcd.log")
    }

    /// Kills it (`kill -9`) and waits until it is gone. The data stay.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended by itself, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Deletes its data while it is stopped: after the next start it is empty.
    pub fn forget(&mut self) -> Result<(), StartError> {
        self.stop();
        fs::remove_dir_all(self.data_path())
            .map_err(|error| StartError(format!("delete etcd's data: {error}")))
    }

    /// Starts it again on the same data and ports, and waits until it answers.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.stop();
        self.child = Some(self.spawn()?);
        self.wait_until_ready().await
    }

    /// Stops its clock (`kill -STOP`): connections stay open and nothing is answered.
    pub fn freeze(&self) -> Result<(), StartError> {
        self.signal("STOP")
    }

    pub fn thaw(&self) -> Result<(), StartError> {
        self.signal("CONT")
    }

    /// Forgets every change before `revision`.
    pub async fn compact(&self, revision: i64) -> Result<(), StartError> {
        let compact = async { Client::connect([self.endpoint()], None).await?.compact(revision, None).await };
        compact.await.map(|_| ()).map_err(|error| StartError(format!("compact etcd: {error}")))
    }

    /// From now on only this password opens it, for the user `root`.
    pub async fn require_password(&self, password: &str) -> Result<(), StartError> {
        let enable = async {
            let mut client = Client::connect([self.endpoint()], None).await?;
            client.user_add("root", password, None).await?;
            client.user_grant_role("root", "root").await?;
            client.auth_enable().await
        };
        enable.await.map(|_| ()).map_err(|error| StartError(format!("enable etcd's authentication: {error}")))
    }

    fn data_path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn spawn(&self) -> Result<Child, StartError> {
        let failed = |error| StartError(format!("start {}: {error}", self.binary.display()));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(failed)?;
        let (client, peer) = (self.endpoint(), format!("http://{}", self.peer));
        Command::new(&self.binary)
            .arg("--data-dir")
            .arg(self.data_path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--name", "test", "--initial-cluster", &format!("test={peer}")])
            .args(TIMING)
            .args(self.certs.iter().flat_map(|folder| tls_arguments(folder)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)
    }

    async fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let ends = Instant::now() + START_TIMEOUT;
        let mut config = self.config("ready");
        config.connect_timeout = Duration::from_millis(500);
        loop {
            let connected = Etcd::connect(&config).await;
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            match (connected, ended) {
                (_, Some(status)) => {
                    return Err(StartError(format!("etcd ended ({status}): {}", self.log())));
                }
                // Denied is an answer too, once authentication is on.
                (Ok(_) | Err(store::Error::Denied(_) | store::Error::Invalid(_)), None) => return Ok(()),
                (Err(error), None) if Instant::now() >= ends => {
                    return Err(StartError(format!("etcd does not answer ({error}): {}", self.log())));
                }
                (Err(_), None) => {}
            }
        }
    }

    fn signal(&self, name: &str) -> Result<(), StartError> {
        let Some(child) = &self.child else { return Err(StartError("etcd is stopped".into())) };
        let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            other => Err(StartError(format!("kill -s {name}: {other:?}"))),
        }
    }

    /// The last lines of its log.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tls_arguments(folder: &Path) -> Vec<OsString> {
    let files = [("cert", "server"), ("key", "server-key"), ("trusted-ca", "ca")];
    let named = files.into_iter().flat_map(|(flag, file)| {
        [format!("--{flag}-file").into(), folder.join(format!("{file}.pem")).into_os_string()]
    });
    named.chain(["--client-cert-auth".into()]).collect()
}

fn find_binary() -> Result<PathBuf, StartError> {
    if let Some(path) = env::var_os(BIN_VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(StartError(format!("`{BIN_VARIABLE}` names no file: {}", path.display()))),
        };
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&folders).map(|folder: PathBuf| folder.join("etcd")).find(|path: &PathBuf| {
            let path: &Path = path;
            path.is_file()
        });
    found.ok_or_else(|| {
        StartError(format!(
            "these tests need etcd: install it (Debian and Ubuntu: apt-get install etcd-server), or set `{BIN_VARIABLE}`"
        ))
    })
}

fn free_address() -> Result<SocketAddr, StartError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener
        .and_then(|listener| listener.local_addr())
        .map_err(|error| StartError(format!("free port: {error}")))
}
