//! The flags of `parlor serve`, and the configuration that they, the environment and the file
//! make together.

use crate::Failure;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use parlor_config::{Config, ConfigError, PortRange, Remark, Source, keys};
use std::{
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Flags of `parlor serve`. They come before the environment, which comes before the file.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Development mode: key `devkey`, secret `secret`, reachable from this machine only.
    #[arg(long)]
    pub dev: bool,
    /// Check the configuration, say what is wrong with it, and end.
    #[arg(long)]
    pub check: bool,
    /// Configuration file (YAML, LiveKit's keys).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Configuration as text.
    #[arg(
        long,
        value_name = "YAML",
        env = "LIVEKIT_CONFIG",
        conflicts_with = "config",
        hide_env_values = true
    )]
    config_body: Option<String>,
    /// Pass over unknown keys of the configuration.
    #[arg(long)]
    disable_strict_config: bool,
    /// Address for HTTP and WebSockets; may be repeated. Default: all.
    #[arg(long, value_name = "IP")]
    bind: Vec<IpAddr>,
    /// TCP port for HTTP and WebSockets. Default: 7880.
    #[arg(long, env = "LIVEKIT_PORT")]
    port: Option<u16>,
    /// API keys: "key: secret", one per line.
    #[arg(long, env = "LIVEKIT_KEYS", hide_env_values = true)]
    keys: Option<String>,
    /// File with API keys: "key: secret", one per line. Others must not be able to read it.
    #[arg(long, value_name = "FILE", env = "LIVEKIT_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Address that clients send media to, if not this machine's own: "v4", "v6" or "v4,v6".
    #[arg(long, value_name = "IP", env = "NODE_IP")]
    node_ip: Option<String>,
    /// UDP port for media, shared by a thread for each processor, or a range with one thread for
    /// each: "7882-7885".
    #[arg(long, value_name = "PORTS", env = "UDP_PORT")]
    udp_port: Option<PortRange>,
    /// Region that clients are told.
    #[arg(long, env = "LIVEKIT_REGION")]
    region: Option<String>,
    /// debug, info, warn or error.
    #[arg(long, value_name = "LEVEL", env = "LIVEKIT_LOG_LEVEL")]
    log_level: Option<String>,
    /// Directory of what outlives the process. Default: nothing does.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Longest time, in seconds, that a server which was told to end waits for participants.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    drain_timeout: u64,
    #[command(flatten)]
    generated: Generated,
}

/// A flag and a variable for every key with a single value: `--room.empty_timeout`,
/// `LIVEKIT_ROOM_EMPTY_TIMEOUT`.
#[derive(Debug, Default)]
struct Generated(Vec<(&'static str, String)>);

/// Keys whose flag or variable would be one of those above.
const NAMED: [&str; 4] = ["port", "region", "key_file", "log_level"];

fn generated_keys() -> impl Iterator<Item = &'static keys::Key> {
    keys::KEYS.iter().filter(|key| key.kind.is_scalar() && !NAMED.contains(&key.path))
}

impl Args for Generated {
    fn augment_args(command: clap::Command) -> clap::Command {
        generated_keys().fold(command, |command, key| {
            let variable = format!("LIVEKIT_{}", key.path.to_uppercase().replace('.', "_"));
            // Made once in the life of the process.
            let variable: &'static str = variable.leak();
            command.arg(
                Arg::new(key.path)
                    .long(key.path)
                    .env(variable)
                    .hide(true)
                    .hide_env_values(true)
                    .action(ArgAction::Set),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Generated {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = generated_keys().filter_map(|key| {
            let value = matches.get_one::<String>(key.path)?;
            Some((key.path, value.clone()))
        });
        Ok(Generated(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Arguments {
    /// How long a server that was told to end waits for participants.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout)
    }

    /// The file, with environment and flags laid over it; and what of it does nothing.
    pub fn config(&self) -> Result<(Config, Vec<Remark>), Failure> {
        let strict = !self.disable_strict_config;
        let mut source = match (&self.config, &self.config_body) {
            (Some(path), _) => read_config(path, strict)?,
            (None, Some(yaml)) => Source::from_yaml(yaml, strict)?,
            (None, None) => Source::default(),
        };
        for (path, value) in &self.generated.0 {
            source.set(path, value)?;
        }
        let remarks = source.remarks().to_vec();
        let mut config = source.config()?;
        if !self.bind.is_empty() {
            config.bind_addresses = self.bind.clone();
        }
        config.port = self.port.unwrap_or(config.port);
        config.rtc.udp_port = self.udp_port.or(config.rtc.udp_port);
        if let Some(level) = &self.log_level {
            config.log_level.clone_from(level);
        }
        let data_dir = self.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
        for (flag, key) in [
            (&self.node_ip, &mut config.rtc.node_ip),
            (&self.region, &mut config.region),
            (&data_dir, &mut config.storage.path),
        ] {
            if let Some(value) = flag {
                key.clone_from(value);
            }
        }
        let named = (!config.key_file.is_empty()).then(|| PathBuf::from(&config.key_file));
        if let Some(path) = self.key_file.as_ref().or(named.as_ref()) {
            config.add_keys(&read_secret_file(path)?)?;
        }
        if let Some(keys) = &self.keys {
            config.add_keys(keys)?;
        }
        for turn in &mut config.rtc.turn_servers {
            if turn.secret.is_empty() && !turn.secret_file.is_empty() {
                let secret = read_secret_file(Path::new(&turn.secret_file))?;
                turn.secret = secret.trim().to_owned();
            }
        }
        if self.dev || config.development {
            config.apply_dev_mode();
        }
        config.check()?;
        Ok((config, remarks))
    }
}

fn read_config(path: &Path, strict: bool) -> Result<Source, Failure> {
    let yaml = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the configuration {}: {error}", path.display()))?;
    Source::from_yaml(&yaml, strict).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// A file that others must not be able to read.
fn read_secret_file(path: &Path) -> Result<String, Failure> {
    let fault = |error| format!("cannot read the file of secrets {}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(fault)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(ConfigError::KeyFileMode(path.display().to_string()).into());
    }
    Ok(std::fs::read_to_string(path).map_err(fault)?)
}
