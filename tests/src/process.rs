//! One `caravan` process: started on free ports, watched through its log, killed by its id.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;

/// Starting and loading on two cores that have other work, too; a process that needs longer is broken.
const MAX_WAIT: Duration = Duration::from_secs(180);

/// A running role. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    grown: watch::Receiver<usize>,
}

/// The binary under test: the one that `cargo build -p cli` put beside the tests, or `CARAVAN_BIN`.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARAVAN_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("the test has no target folder")?.join("caravan");
    ensure!(path.exists(), "{} is missing; build it with: cargo build -p cli", path.display());
    Ok(path)
}

/// The folder of what was built, where tests keep what takes long to get.
pub fn target() -> Result<PathBuf> {
    Ok(binary()?.ancestors().nth(2).context("the binary has no target folder")?.to_owned())
}

impl Process {
    /// Starts `caravan ARGUMENTS` with an environment of nothing but `environment`, and waits until it is ready.
    pub async fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Process> {
        let mut process = Process::spawn(name, arguments, environment)?;
        process.wait_for("ready").await?;
        Ok(process)
    }

    /// Starts it without waiting.
    pub fn spawn(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Process> {
        let mut command = Command::new(binary()?);
        command.args(arguments).env_clear().envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stderr = child.stderr.take().context("the log was piped")?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let (grow, grown) = watch::channel(0);
        let (lines, label) = (log.clone(), name.to_owned());
        // Ends with the process: its end closes the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if std::env::var_os("CARAVAN_TEST_LOG").is_some() {
                    eprintln!("[{label}] {line}");
                }
                lines.lock().expect("no reader panics").push(line);
                grow.send_modify(|count| *count += 1);
            }
        });
        Ok(Process { name: name.to_owned(), child, log, grown })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line with `text` and returns it.
    pub async fn wait_for(&mut self, text: &str) -> Result<String> {
        let name = self.name.clone();
        let found = async {
            loop {
                if let Some(line) = self.lines().into_iter().find(|line| line.contains(text)) {
                    return Ok(line);
                }
                if self.grown.changed().await.is_err() {
                    bail!("{} ended before it said {text:?}:\n{}", self.name, self.lines().join("\n"));
                }
            }
        };
        match tokio::time::timeout(MAX_WAIT, found).await {
            Ok(line) => line,
            Err(_) => bail!("{name} did not say {text:?} within {MAX_WAIT:?}:\n{}", self.lines().join("\n")),
        }
    }

    /// What the ready line says behind `key=`: the address that the kernel chose.
    pub fn told(&self, key: &str) -> Result<String> {
        let lines = self.lines();
        let line = lines.iter().find(|line| line.contains("ready")).context("no ready line")?;
        let fields: BTreeMap<&str, &str> =
            line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        let value = fields.get(key).with_context(|| format!("the ready line has no {key}: {line}"))?;
        Ok(value.trim_matches('"').to_owned())
    }

    pub fn lines(&self) -> Vec<String> {
        self.log.lock().expect("no writer panics").clone()
    }

    /// Fails when the log has an ERROR line without one of the `expected` texts: somebody would be woken for it.
    pub fn check_log(&self, expected: &[&str]) -> Result<()> {
        for line in self.lines().iter().filter(|line| line.contains("ERROR") || line.contains("panicked")) {
            ensure!(expected.iter().any(|text| line.contains(text)), "{}: unexpected: {line}", self.name);
        }
        Ok(())
    }

    /// SIGKILL: no chance to say goodbye.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end; returns whether it ended with success.
    pub async fn terminate(&mut self) -> Result<bool> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "could not signal {}", self.name);
        // The pipe closes when the process is gone.
        let closed = async { while self.grown.changed().await.is_ok() {} };
        ensure!(
            tokio::time::timeout(MAX_WAIT, closed).await.is_ok(),
            "{} did not end within {MAX_WAIT:?}",
            self.name
        );
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.lines().join("\n"));
        }
    }
}
