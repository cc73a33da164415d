//! The test kit: a real server that speaks S3, for the tests of this crate and of those that start whole clusters.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Access;

/// Pinned, so that a red test means that we changed.
const PACKAGES: &str = include_str!("../testing/requirements.txt");
const SERVER: &str = include_str!("../testing/server.py");
/// The server looks at the form of it only.
const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// `moto`, on a free port of this machine, with everything in its memory. It ends when this is dropped, or with the
/// process that has it.
pub struct S3Server {
    child: Child,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
    fences: AtomicUsize,
}

/// Why there is no server, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

// === impl S3Server ===

impl S3Server {
    /// The bucket that there is from the beginning.
    pub const BUCKET: &str = "models";

    /// Makes its Python environment when it is not there; the first start takes a while.
    pub async fn start() -> Result<S3Server, StartError> {
        let started = tokio::task::spawn_blocking(|| S3Server::spawn(&interpreter()?)).await;
        let server = started.map_err(|error| StartError(error.to_string()))??;
        server.make_bucket(S3Server::BUCKET).await?;
        Ok(server)
    }

    fn spawn(python: &Path) -> Result<S3Server, StartError> {
        let wrong = |error: std::io::Error| StartError(format!("start the S3 server: {error}"));
        let mut command = Command::new(python);
        // Its end of the pipe closes with this process, however that ends.
        command.args(["-c", SERVER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(wrong)?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(StartError("the S3 server has no output".to_owned()));
        };
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut address = String::new();
        BufReader::new(out).read_line(&mut address).map_err(wrong)?;
        if address.trim().is_empty() {
            return Err(StartError("the S3 server ended before it listened".to_owned()));
        }
        Ok(S3Server { child, address: address.trim().to_owned(), log, fences: AtomicUsize::new(0) })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// What a process needs in its environment to use it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        environment(&self.address)
    }

    pub fn access(&self) -> Access {
        Access::new(self.environment().map(|(name, value)| (name.to_owned(), value)))
    }

    /// How often it answered a request whose log line has all of `texts`.
    pub async fn answered(&self, texts: &[&str]) -> Result<usize, StartError> {
        // The log comes through a pipe: what is behind this line was answered later.
        let fence = format!("fence-{}", self.fences.fetch_add(1, Ordering::Relaxed));
        self.keys(&fence).await?;
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while self.lines(&[&fence]) == 0 {
            tick.tick().await;
        }
        Ok(self.lines(texts))
    }

    fn lines(&self, texts: &[&str]) -> usize {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    /// SIGSTOP or SIGCONT: a server that hangs, and one that has come back.
    pub fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.child.id().to_string()];
        let status = Command::new("kill").args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "could not signal the S3 server");
    }

    pub async fn make_bucket(&self, bucket: &str) -> Result<(), StartError> {
        self.ask(reqwest::Method::PUT, bucket, Vec::new()).await.map(drop)
    }

    /// Puts an object into the bucket without any code of ours.
    pub async fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) -> Result<(), StartError> {
        self.ask(reqwest::Method::PUT, &format!("{}/{key}", S3Server::BUCKET), bytes.into()).await.map(drop)
    }

    /// An object as the server has it.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, StartError> {
        self.ask(reqwest::Method::GET, &format!("{}/{key}", S3Server::BUCKET), Vec::new()).await
    }

    /// The keys that begin like this.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, StartError> {
        let path = format!("{}?list-type=2&prefix={prefix}", S3Server::BUCKET);
        let text = self.ask(reqwest::Method::GET, &path, Vec::new()).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        Ok(keys.map(str::to_owned).collect())
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, StartError> {
        let wrong = |error: reqwest::Error| StartError(format!("ask the S3 server: {error}"));
        crate::transfer::install_crypto();
        let request = reqwest::Client::new()
            .request(method, format!("http://{}/{path}", self.address))
            .header("authorization", AUTHORIZATION)
            .header("content-type", "application/octet-stream");
        let answer = request.body(body).send().await.map_err(wrong)?;
        let answer = answer.error_for_status().map_err(wrong)?;
        Ok(answer.bytes().await.map_err(wrong)?.into())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process needs in its environment to use a server at `address`.
pub fn environment(address: &str) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test-secret".to_owned()),
    ]
}

/// Of an environment with the packages, made once and kept under the target folder.
fn interpreter() -> Result<PathBuf, StartError> {
    let wrong = |what: &str, error: std::io::Error| StartError(format!("{what} the S3 server: {error}"));
    let program = env::current_exe().map_err(|error| wrong("find a place for", error))?;
    // target/debug/deps/laws-0123456789abcdef
    let target = program.ancestors().nth(3).unwrap_or(Path::new("target")).to_owned();
    let lock = File::create(target.join("s3-venv.lock")).map_err(|error| wrong("lock", error))?;
    lock.lock().map_err(|error| wrong("lock", error))?;
    let folder = target.join("s3-venv");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|made| made == PACKAGES) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pinned = folder.join("pinned.txt");
    fs::write(&pinned, PACKAGES).map_err(|error| wrong("install", error))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
    run(Command::new(&python).args(install).arg(&pinned))?;
    fs::rename(&pinned, &stamp).map_err(|error| wrong("install", error))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), StartError> {
    let text = match command.output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    Err(StartError(format!("{command:?}: {text}; find or install Python with: make tools")))
}
