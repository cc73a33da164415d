//! What an operator can set, under all of its names, and how it becomes the configuration of a role.

use std::{fmt, net::ToSocketAddrs, path::PathBuf};

use api::KeepAlive;
use engine::{Device, KvType, Tier};
use node::{
    Host, Setting, Sources,
    config::{Result, ollama_bool, ollama_duration, one_of, strict_bool, text, uint},
    ident,
};
use registry::{EtcdConfig, Limits};
use store::transfer::Mirrors;

use super::{cores, storage::Storage};
use crate::args::{ClusterArgs, RoleArgs};

/// Which of the roles reads its settings: the addresses differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Serve,
    Gateway,
    Worker,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Serve => "serve",
            Role::Gateway => "gateway",
            Role::Worker => "worker",
        }
    }
}

/// The keys of the file.
pub const NAMES: [&str; 13] = [
    "listen",
    "advertise",
    "admin-listen",
    "etcd",
    "cluster",
    "store",
    "cache",
    "cache-bytes",
    "id",
    "device",
    "threads",
    "engine",
    "keys-file",
];

/// How to come in where etcd asks who we are.
#[derive(Clone, Default)]
pub struct EtcdAccess {
    user: Option<String>,
    password: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Everything that was set, or its default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` to bind.
    pub listen: String,
    pub advertise: Option<String>,
    pub admin_listen: String,
    /// Whether another port will do when that one is taken.
    pub admin_may_move: bool,
    /// Empty: the metadata store is in this process.
    pub etcd: Vec<String>,
    pub etcd_access: EtcdAccess,
    pub cluster: String,
    pub storage: Storage,
    pub id: String,
    pub threads: usize,
    /// `None` = a GPU if there is one.
    pub device: Option<Device>,
    /// `None` = the best that the processor has.
    pub tier: Option<Tier>,
    /// Guessed tokens of one step; 0 = none.
    pub guesses: Option<usize>,
    pub kv_type: KvType,
    pub scripted: bool,
    pub tokens_per_second: u64,
    pub scripted_load: std::time::Duration,
    pub keep_alive: Option<KeepAlive>,
    /// `None` = no bound.
    pub load_timeout: Option<std::time::Duration>,
    pub context_length: u32,
    /// Bytes of each GPU that nothing is loaded into.
    pub gpu_overhead: u64,
    pub origins: Vec<String>,
    pub prune: bool,
    pub keys_file: Option<PathBuf>,
    /// What the file says; `None` = no request needs a key.
    pub keys: Option<gateway::Keys>,
    pub limits: Limits,
    pub mirrors: Mirrors,
}

/// How many threads anybody may ask for: more than any machine has.
const MAX_THREADS: u64 = 1024;
/// More than this is never computed in one step.
const MAX_GUESSES: u64 = 256;
/// A stall of a load longer than this ends it.
const LOAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

const LISTEN: Setting<Host> =
    Setting::new("listen", &["OLLAMA_HOST"], "host:port", Host::parse_strict).ollama(Host::parse_ollama);
const WORKER_LISTEN: Setting<String> =
    Setting::new("listen", &["CARAVAN_WORKER_LISTEN"], "host:port", host_and_port);
const ADVERTISE: Setting<String> =
    Setting::new("advertise", &["CARAVAN_ADVERTISE"], "host:port", host_and_port);
const ADMIN_LISTEN: Setting<String> =
    Setting::new("admin-listen", &["CARAVAN_ADMIN_LISTEN"], "host:port", host_and_port);
const ETCD: Setting<Vec<String>> =
    Setting::new("etcd", &["CARAVAN_ETCD"], "http(s)://host:port, separated by commas", endpoints);
const CLUSTER: Setting<String> =
    Setting::new("cluster", &["CARAVAN_CLUSTER"], "1 to 80 letters, digits, `-`, `_` or `.`", ident::parse);
const ID: Setting<String> =
    Setting::new("id", &["CARAVAN_ID"], "1 to 80 letters, digits, `-`, `_` or `.`", ident::parse);
const DEVICES: &str = match Device::HAS_CUDA {
    true => "cpu, cuda:N or auto",
    false => "cpu or auto (this build has no CUDA)",
};
const DEVICE: Setting<Option<Device>> = Setting::new("device", &["CARAVAN_DEVICE"], DEVICES, device);
const THREADS: Setting<u64> =
    Setting::new("threads", &["CARAVAN_THREADS"], "a number from 1 to 1024", |text| {
        uint(text).filter(|threads| (1..=MAX_THREADS).contains(threads))
    });
const TIER: Setting<Tier> = Setting::new(
    "",
    &["CARAVAN_CPU"],
    "scalar, neon, avx2, avx-vnni, avx512 or avx512-bf16, and the processor's",
    |text| Tier::from_name(text).filter(|tier| tier.is_available()),
);
const GUESSES: Setting<u64> =
    Setting::new("", &["CARAVAN_GUESSES"], "a number from 0 to 256; 0 = guess nothing", |text| {
        uint(text).filter(|guesses| *guesses <= MAX_GUESSES)
    });
const KV_TYPE: Setting<KvType> =
    Setting::new("", &["OLLAMA_KV_CACHE_TYPE"], "f16 or q8_0", |text| {
        match text.to_ascii_lowercase().as_str() {
            "f16" => Some(KvType::F16),
            "q8_0" => Some(KvType::Q8_0),
            _ => None,
        }
    });
const ENGINE: Setting<&str> = Setting::new("engine", &["CARAVAN_ENGINE"], "candle or scripted", |text| {
    one_of(&["candle", "scripted"], text)
});
const TOKENS_PER_SECOND: Setting<u64> =
    Setting::new("", &["CARAVAN_SCRIPTED_TOKENS_PER_SECOND"], "a number; 0 = as fast as it can", uint);
const SCRIPTED_LOAD: Setting<u64> =
    Setting::new("", &["CARAVAN_SCRIPTED_LOAD_MS"], "a number of milliseconds below 2^32", small);
const KEEP_ALIVE: Setting<KeepAlive> =
    Setting::new("", &["OLLAMA_KEEP_ALIVE"], "a duration such as 5m", ollama_duration);
const STALL: Setting<KeepAlive> =
    Setting::new("", &["OLLAMA_LOAD_TIMEOUT"], "a duration such as 5m", ollama_duration);
const CONTEXT_LENGTH: Setting<u64> = Setting::new("", &["OLLAMA_CONTEXT_LENGTH"], "a number", small);
const GPU_OVERHEAD: Setting<u64> = Setting::new("", &["OLLAMA_GPU_OVERHEAD"], "a number of bytes", uint);
const ORIGINS: Setting<String> = Setting::new("", &["OLLAMA_ORIGINS"], "origins separated by commas", text);
const NO_PRUNE: Setting<bool> =
    Setting::new("", &["OLLAMA_NOPRUNE"], "a bool", strict_bool).ollama(ollama_bool);
const KEYS_FILE: Setting<PathBuf> =
    Setting::new("keys-file", &["CARAVAN_KEYS_FILE"], "the path of a file", path);
const MIRRORS: Setting<Mirrors> = Setting::new(
    "",
    &["CARAVAN_REGISTRY_MIRROR"],
    "http(s)://host[/path] or HOST=http(s)://host[/path], separated by commas",
    |text| text.parse().ok(),
);
const MAX_LOADED: Setting<u64> = Setting::new("", &["OLLAMA_MAX_LOADED_MODELS"], "a number", small);
const PARALLEL: Setting<u64> = Setting::new("", &["OLLAMA_NUM_PARALLEL"], "a number", small);
const MAX_QUEUE: Setting<u64> = Setting::new("", &["OLLAMA_MAX_QUEUE"], "a number", small);

// === impl Settings ===

impl Settings {
    /// # Errors
    /// The key, its source, its bound and the value of the first setting that is wrong.
    pub fn read(role: Role, flags: &RoleArgs, sources: &Sources) -> Result<Settings> {
        let number = |setting: &Setting<u64>| Ok(sources.read(setting, None)?.unwrap_or_default() as u32);
        let admin = if role == Role::Worker { "127.0.0.1:11501" } else { "127.0.0.1:11435" };
        let chosen_admin = sources.read(&ADMIN_LISTEN, flags.admin_listen.as_deref())?;
        let origins = sources.read(&ORIGINS, None)?.unwrap_or_default();
        let (listen, advertise) =
            (listen(role, flags, sources)?, sources.read(&ADVERTISE, flags.advertise.as_deref())?);
        if role == Role::Worker && advertise.is_none() && is_everywhere(&listen) {
            return Err(node::config::Error::Missing {
                key: "advertise",
                bound: "the host:port by which gateways reach this worker",
                reason: format!("it listens on {listen}, which is no address to call"),
            });
        }
        Ok(Settings {
            listen,
            advertise,
            // Ollama has one port; who gives a second server another one gives it that one only.
            admin_may_move: role == Role::Serve && chosen_admin.is_none(),
            admin_listen: chosen_admin.unwrap_or_else(|| admin.to_owned()),
            etcd: sources.read(&ETCD, flags.etcd.as_deref())?.unwrap_or_default(),
            etcd_access: EtcdAccess::read(sources),
            cluster: sources
                .read(&CLUSTER, flags.cluster.as_deref())?
                .unwrap_or_else(|| "default".to_owned()),
            storage: Storage::read(flags, sources)?,
            id: sources.read(&ID, flags.id.as_deref())?.unwrap_or_else(ident::id),
            threads: sources
                .read(&THREADS, flags.threads.as_deref())?
                .map_or_else(cores::available, |n| n as usize),
            device: sources.read(&DEVICE, flags.device.as_deref())?.flatten(),
            tier: sources.read(&TIER, None)?,
            guesses: sources.read(&GUESSES, None)?.map(|guesses| guesses as usize),
            kv_type: sources.read(&KV_TYPE, None)?.unwrap_or_default(),
            scripted: sources.read(&ENGINE, flags.engine.as_deref())? == Some("scripted"),
            tokens_per_second: sources.read(&TOKENS_PER_SECOND, None)?.unwrap_or_default(),
            scripted_load: std::time::Duration::from_millis(number(&SCRIPTED_LOAD)?.into()),
            keep_alive: sources.read(&KEEP_ALIVE, None)?,
            load_timeout: sources.read(&STALL, None)?.map_or(Some(LOAD_TIMEOUT), stall),
            context_length: number(&CONTEXT_LENGTH)?,
            gpu_overhead: sources.read(&GPU_OVERHEAD, None)?.unwrap_or_default(),
            origins: origins.split(',').filter(|origin| !origin.is_empty()).map(str::to_owned).collect(),
            prune: !sources.read(&NO_PRUNE, None)?.unwrap_or_default(),
            keys_file: sources.read(&KEYS_FILE, flags.keys_file.as_deref())?,
            keys: None,
            limits: Limits {
                max_loaded_models: number(&MAX_LOADED)?,
                num_parallel: number(&PARALLEL)?,
                max_queue: sources.read(&MAX_QUEUE, None)?.map_or(Limits::default().max_queue, |n| n as u32),
            },
            mirrors: sources.read(&MIRRORS, None)?.unwrap_or_default(),
        })
    }
}

/// Without the password: settings are logged.
impl fmt::Debug for EtcdAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EtcdAccess { user, password, ca, cert, key } = self;
        let password = password.as_ref().map(|_| "***");
        f.debug_struct("EtcdAccess")
            .field("user", user)
            .field("password", &password)
            .field("ca", ca)
            .field("cert", cert)
            .field("key", key)
            .finish()
    }
}

impl EtcdAccess {
    fn read(sources: &Sources) -> EtcdAccess {
        let text = |name: &str| sources.variable(name).map(str::to_owned);
        EtcdAccess {
            user: text("CARAVAN_ETCD_USER"),
            password: text("CARAVAN_ETCD_PASSWORD"),
            ca: text("CARAVAN_ETCD_CA").map(PathBuf::from),
            cert: text("CARAVAN_ETCD_CERT").map(PathBuf::from),
            key: text("CARAVAN_ETCD_KEY").map(PathBuf::from),
        }
    }

    pub fn apply(&self, config: &mut EtcdConfig) {
        let EtcdAccess { user, password, ca, cert, key } = self.clone();
        (config.user, config.password) = (user, password);
        (config.ca, config.cert, config.key) = (ca, cert, key);
    }
}

/// Where the etcd of a cluster is, and who we are to it. Without endpoints none was named.
pub fn etcd(flags: &ClusterArgs, sources: &Sources) -> Result<EtcdConfig> {
    let endpoints = sources.read(&ETCD, flags.etcd.as_deref())?.unwrap_or_default();
    let cluster = sources.read(&CLUSTER, flags.cluster.as_deref())?;
    let mut config = EtcdConfig::new(endpoints, cluster.unwrap_or_else(|| "default".to_owned()));
    EtcdAccess::read(sources).apply(&mut config);
    Ok(config)
}

fn listen(role: Role, flags: &RoleArgs, sources: &Sources) -> Result<String> {
    let flag = flags.listen.as_deref();
    if role == Role::Worker {
        return Ok(sources.read(&WORKER_LISTEN, flag)?.unwrap_or_else(|| "127.0.0.1:11500".to_owned()));
    }
    Ok(sources.read(&LISTEN, flag)?.unwrap_or_default().bind_address())
}

/// Whether an address is that of every interface.
fn is_everywhere(address: &str) -> bool {
    let addresses = address.to_socket_addrs();
    addresses.is_ok_and(|mut addresses| addresses.any(|address| address.ip().is_unspecified()))
}

fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    // A name is looked up when it is used; brackets must be those of an address.
    let is_address = !host.contains(['[', ']', ':']) || text.to_socket_addrs().is_ok();
    // etcd asks for its user in variables of its own; nothing else asks for one.
    (!host.is_empty() && !host.contains('@') && is_address).then(|| text.to_owned())
}

fn endpoints(text: &str) -> Option<Vec<String>> {
    let is_url = |part: &&str| {
        let address = part.strip_prefix("http://").or_else(|| part.strip_prefix("https://"));
        address.is_some_and(|address| host_and_port(address.trim_end_matches('/')).is_some())
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let all = !parts.is_empty() && parts.iter().all(is_url);
    all.then(|| parts.into_iter().map(str::to_owned).collect())
}

/// A path, or a `file://` URL.
fn path(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    (!path.is_empty() && !path.contains("://")).then(|| PathBuf::from(path))
}

/// `Some(None)` = whatever there is.
fn device(text: &str) -> Option<Option<Device>> {
    let device = Device::from_name(text).filter(|device| Device::HAS_CUDA || *device == Device::Cpu);
    if text == "auto" { Some(None) } else { device.map(Some) }
}

fn small(text: &str) -> Option<u64> {
    uint(text).filter(|number| u32::try_from(*number).is_ok())
}

/// Zero and less mean that a load may stall for ever.
fn stall(duration: KeepAlive) -> Option<std::time::Duration> {
    duration.duration().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: Role, flags: &RoleArgs, environment: &[(&str, &str)]) -> Result<Settings> {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(role, flags, &Sources::new(pairs))
    }

    #[test]
    fn the_defaults_are_those_of_ollama() {
        let settings = read(Role::Serve, &RoleArgs::default(), &[]).unwrap();
        assert_eq!(settings.listen, "127.0.0.1:11434");
        assert_eq!(settings.admin_listen, "127.0.0.1:11435");
        assert_eq!(settings.limits, Limits { max_loaded_models: 0, num_parallel: 0, max_queue: 512 });
        assert!(settings.prune && settings.etcd.is_empty());
    }

    #[test]
    fn a_worker_listens_elsewhere() {
        let settings = read(Role::Worker, &RoleArgs::default(), &[("OLLAMA_HOST", "0.0.0.0")]).unwrap();
        assert_eq!(
            (settings.listen.as_str(), settings.admin_listen.as_str()),
            ("127.0.0.1:11500", "127.0.0.1:11501")
        );
    }

    #[test]
    fn what_is_wrong_is_told_by_key_bound_value_and_source() {
        let flags = RoleArgs { etcd: Some("localhost:2379".to_owned()), ..RoleArgs::default() };
        assert_eq!(
            read(Role::Gateway, &flags, &[]).unwrap_err().to_string(),
            "`--etcd` must be http(s)://host:port, separated by commas, got \"localhost:2379\" (command line)"
        );
        assert_eq!(
            read(Role::Worker, &RoleArgs::default(), &[("CARAVAN_THREADS", "0")]).unwrap_err().to_string(),
            "`CARAVAN_THREADS` must be a number from 1 to 1024, got \"0\" (environment)"
        );
    }

    #[test]
    fn devices_are_those_that_the_build_has_code_for() {
        let read = |device: &str| read(Role::Worker, &RoleArgs::default(), &[("CARAVAN_DEVICE", device)]);
        assert_eq!(read("auto").unwrap().device, None);
        assert_eq!(read("cpu").unwrap().device, Some(Device::Cpu));
        let found = read("cuda:1").map(|settings| settings.device).map_err(|error| error.to_string());
        let expected = match Device::HAS_CUDA {
            true => Ok(Some(Device::Cuda(1))),
            false => Err(
                "`CARAVAN_DEVICE` must be cpu or auto (this build has no CUDA), got \"cuda:1\" (environment)"
                    .to_owned(),
            ),
        };
        assert_eq!(found, expected);
        for wrong in ["cuda", "cuda:x", "candle-cpu", "gpu"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn junk_of_ollama_is_passed_over() {
        let junk = [
            ("OLLAMA_MAX_QUEUE", "many"),
            ("OLLAMA_MAX_LOADED_MODELS", "-1"),
            ("OLLAMA_NUM_PARALLEL", "4.0"),
            ("OLLAMA_CONTEXT_LENGTH", "99999999999"),
            ("OLLAMA_GPU_OVERHEAD", "1GB"),
            ("OLLAMA_KEEP_ALIVE", "soon"),
            ("OLLAMA_LOAD_TIMEOUT", "soon"),
            ("OLLAMA_KV_CACHE_TYPE", "q4_0"),
            ("OLLAMA_HOST", "127.0.0.1:99999"),
        ];
        let settings = read(Role::Serve, &RoleArgs::default(), &junk).unwrap();
        let plain = read(Role::Serve, &RoleArgs::default(), &[]).unwrap();
        let read = |settings: Settings| Settings { id: String::new(), ..settings };
        assert_eq!(format!("{:?}", read(settings)), format!("{:?}", read(plain)));
    }

    #[test]
    fn variables_of_ollama_are_read_as_ollama_reads_them() {
        let read = |name, value| read(Role::Serve, &RoleArgs::default(), &[(name, value)]).unwrap();
        let seconds = |count| Some(std::time::Duration::from_secs(count));
        for (value, timeout) in
            [("10s", seconds(10)), ("10", seconds(10)), ("0", None), ("-1", None), ("1h30m", seconds(5400))]
        {
            assert_eq!(read("OLLAMA_LOAD_TIMEOUT", value).load_timeout, timeout, "{value}");
        }
        for (value, prune) in
            [("1", false), ("TRUE", false), ("no", false), ("off", false), ("f", true), ("0", true)]
        {
            assert_eq!(read("OLLAMA_NOPRUNE", value).prune, prune, "{value}");
        }
        assert_eq!(read("OLLAMA_KEEP_ALIVE", "-1").keep_alive, Some(KeepAlive::FOREVER));
        assert_eq!(read("OLLAMA_MAX_QUEUE", " \"7\" ").limits.max_queue, 7);
        assert_eq!(read("OLLAMA_MODELS", "'/srv/models'").storage.location.to_string(), "/srv/models");
        assert_eq!(read("OLLAMA_ORIGINS", "http://a,,http://b").origins, ["http://a", "http://b"]);
        assert_eq!(read("OLLAMA_HOST", "http://0.0.0.0").listen, "0.0.0.0:80");
        assert_eq!(read("OLLAMA_KV_CACHE_TYPE", "Q8_0").kv_type, KvType::Q8_0);
        assert_eq!(read("OLLAMA_GPU_OVERHEAD", "1073741824").gpu_overhead, 1 << 30);
    }

    #[test]
    fn a_password_is_not_logged() {
        let settings =
            read(Role::Worker, &RoleArgs::default(), &[("CARAVAN_ETCD_PASSWORD", "hunter2")]).unwrap();
        let logged = format!("{settings:?}");
        assert!(logged.contains("***") && !logged.contains("hunter2"), "{logged}");
    }

    #[test]
    fn a_worker_on_every_address_must_say_its_own() {
        for listen in ["0.0.0.0:11500", "[::]:11500"] {
            let flags = RoleArgs { listen: Some(listen.to_owned()), ..RoleArgs::default() };
            let told = super::tests::read(Role::Worker, &flags, &[]).unwrap_err().to_string();
            assert!(told.contains("`advertise` must be given") && told.contains(listen), "{told}");
            let told = [("CARAVAN_ADVERTISE", "10.0.0.7:11500")];
            assert!(super::tests::read(Role::Worker, &flags, &told).is_ok());
            assert!(super::tests::read(Role::Gateway, &flags, &[]).is_ok());
        }
    }

    #[test]
    fn nobody_is_told_who_we_are_to_a_mirror() {
        let read = |mirror| read(Role::Serve, &RoleArgs::default(), &[("CARAVAN_REGISTRY_MIRROR", mirror)]);
        let logged = format!("{:?}", read("hf.co=http://me:hunter2@mirror:5000/x").unwrap());
        assert!(logged.contains("http://mirror:5000/x/") && !logged.contains("hunter2"), "{logged}");
        let told = read("hf.co=htp://me:hunter2@mirror").unwrap_err().to_string();
        assert!(told.contains("got \"hf.co=htp://***@mirror\" (environment)"), "{told}");
        let flags = RoleArgs { etcd: Some("http://me:hunter2@etcd:2379".to_owned()), ..RoleArgs::default() };
        let told = super::tests::read(Role::Gateway, &flags, &[]).unwrap_err().to_string();
        assert!(told.contains("got \"http://***@etcd:2379\""), "{told}");
    }

    #[test]
    fn addresses_have_a_port() {
        assert!(host_and_port("[::1]:80").is_some() && host_and_port("worker-0.workers:11500").is_some());
        for wrong in ["worker", "worker:", ":80", "worker:99999", "::1:80:"] {
            assert!(host_and_port(wrong).is_none(), "{wrong}");
        }
    }
}
