//! `parlor load-test`.

use crate::{Failure, token};
use clap::{Args, ValueEnum};
use parlor_load::{Layout, LoadConfig, Report, Resolution, VIDEO_CODECS};
use parlor_model::Codec;
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Flags of `parlor load-test`: those of `lk load-test`, and more.
#[derive(Args, Debug)]
#[group(id = "load")]
pub struct Arguments {
    #[command(flatten)]
    key: token::Key,
    /// Server: Parlor, or any other that speaks LiveKit's protocol.
    #[arg(long, env = "LIVEKIT_URL", default_value = "ws://localhost:7880")]
    url: String,
    /// Room; with several rooms, the beginning of their names.
    #[arg(long, default_value = "load-test")]
    room: String,
    /// Rooms, each with all the participants below.
    #[arg(long, default_value_t = 1)]
    rooms: usize,
    /// How long to wait after the last has joined before measuring: 1s, 1m.
    #[arg(long, value_parser = token::duration, default_value = "1s")]
    warm_up: Duration,
    /// How long to measure then: 30s, 5m. Default: until Ctrl-C.
    #[arg(long, value_parser = token::duration)]
    duration: Option<Duration>,
    /// Participants with a camera.
    #[arg(long, alias = "publishers", value_name = "N", default_value_t = 0)]
    video_publishers: usize,
    /// Participants with a microphone; they are the same ones as those with a camera.
    #[arg(long, value_name = "N", default_value_t = 0)]
    audio_publishers: usize,
    /// Participants who only receive.
    #[arg(long, value_name = "N", default_value_t = 0)]
    subscribers: usize,
    /// Beginning of every identity.
    #[arg(long, value_name = "TEXT", default_value = "load")]
    identity_prefix: String,
    /// Largest picture: 1280x720, 640x360 or 320x180.
    #[arg(long, value_enum, default_value = "high")]
    video_resolution: VideoResolution,
    /// h264, vp8, vp9 or av1.
    #[arg(long, value_parser = codec, default_value = "vp8")]
    video_codec: Codec,
    /// Participants who begin to join in a second, over all rooms.
    #[arg(long, alias = "join-rate", value_name = "N", value_parser = rate, default_value_t = 5.0)]
    num_per_second: f64,
    /// What subscribers show: all, speaker, 3x3, 4x4 or 5x5.
    #[arg(long, value_parser = layout, default_value = "all")]
    layout: Layout,
    /// Publish one size of picture instead of three.
    #[arg(long)]
    no_simulcast: bool,
    /// One speaks at a time, in turn, instead of all.
    #[arg(long)]
    simulate_speakers: bool,
    /// Who does not speak sends as good as nothing (Opus DTX).
    #[arg(long)]
    dtx: bool,
    /// Publishers receive what the others publish.
    #[arg(long)]
    publishers_receive: bool,
    /// Subscribers who leave and are replaced in a second.
    #[arg(long, value_name = "N", value_parser = rate, default_value_t = 0.0)]
    churn: f64,
    /// Percent of datagrams to lose in each direction.
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value_t = 0.0)]
    loss: f64,
    /// Use one connection for both ways (/rtc/v1). Default.
    #[arg(long, conflicts_with = "pair")]
    single: bool,
    /// Use a connection for each way (/rtc).
    #[arg(long)]
    pair: bool,
    /// Give no transport-wide feedback: what estimating links costs a server is then missing
    #[arg(long)]
    no_transport_feedback: bool,
    /// Threads that drive the participants.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Process of a server on this machine, to report its CPU time and memory.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Print the report as JSON, and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum VideoResolution {
    High,
    Medium,
    Low,
}

/// Runs `parlor load-test`.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config()?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(stop.clone());
    let live = !arguments.json && std::io::stderr().is_terminal();
    let report = parlor_load::run(&config, &stop, |progress| {
        if live {
            eprint!("\r\x1b[2K{progress}");
            let _ = std::io::stderr().flush();
        }
    })?;
    if live {
        eprintln!();
    }
    print(&report, arguments.json)
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    if report.joins.connected == 0 {
        return Err("nobody could join".into());
    }
    Ok(())
}

/// The first Ctrl-C ends the load and prints what it saw; the second ends the program.
fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            for _ in 0..2 {
                if tokio::signal::ctrl_c().await.is_err() {
                    return;
                }
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
}

impl Arguments {
    fn config(&self) -> Result<LoadConfig, Failure> {
        let (api_key, api_secret) = self.key.pair()?;
        Ok(LoadConfig {
            url: self.url.clone(),
            api_key: api_key.to_owned(),
            api_secret: api_secret.to_owned(),
            room: self.room.clone(),
            rooms: self.rooms,
            warm_up: self.warm_up,
            duration: self.duration,
            video_publishers: self.video_publishers,
            audio_publishers: self.audio_publishers,
            subscribers: self.subscribers,
            identity_prefix: self.identity_prefix.clone(),
            resolution: match self.video_resolution {
                VideoResolution::High => Resolution::High,
                VideoResolution::Medium => Resolution::Medium,
                VideoResolution::Low => Resolution::Low,
            },
            codec: self.video_codec,
            joins_per_second: self.num_per_second,
            layout: self.layout,
            simulcast: !self.no_simulcast,
            simulate_speakers: self.simulate_speakers,
            dtx: self.dtx,
            publishers_receive: self.publishers_receive,
            churn_per_second: self.churn,
            loss: self.loss / 100.0,
            model: if self.pair {
                parlor_client::Model::Pair
            } else {
                parlor_client::Model::Single
            },
            transport_feedback: !self.no_transport_feedback,
            threads: self.threads,
            server_pid: self.server_pid,
        })
    }
}

fn codec(name: &str) -> Result<Codec, String> {
    Codec::from_mime_type(name)
        .filter(|codec| VIDEO_CODECS.contains(codec))
        .ok_or_else(|| "must be h264, vp8, vp9 or av1".into())
}

fn layout(name: &str) -> Result<Layout, String> {
    let found = Layout::NAMES.into_iter().find(|(other, _)| *other == name);
    found.map(|(_, layout)| layout).ok_or_else(|| "must be all, speaker, 3x3, 4x4 or 5x5".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok();
    rate.filter(|rate| (0.0..=1e6).contains(rate)).ok_or_else(|| "must be 0 to 1000000".into())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "must be 0 to 100".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn config(flags: &str) -> Result<LoadConfig, String> {
        let words = std::iter::once("load-test").chain(flags.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.arguments.config().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_as_of_lk() {
        let config = config(
            "--api-key k --api-secret s --room r --duration 1m --publishers 2 --audio-publishers 3 \
             --subscribers 5 --video-codec h264 --num-per-second 10 --layout 3x3 --no-simulcast \
             --video-resolution medium --simulate-speakers --identity-prefix x --loss 5 \
             --no-transport-feedback",
        )
        .unwrap();
        assert_eq!((config.video_publishers, config.audio_publishers), (2, 3));
        assert_eq!((config.codec, config.layout), (Codec::H264, Layout::Grid3x3));
        assert_eq!((config.duration, config.loss), (Some(Duration::from_secs(60)), 0.05));
        assert!(!config.simulcast && config.simulate_speakers && !config.transport_feedback);
    }

    #[test]
    fn faults_say_what_to_do() {
        assert!(config("--dev --video-codec h265").unwrap_err().contains("vp9"));
        assert!(config("--dev --layout 9x9").unwrap_err().contains("3x3"));
        assert!(config("--dev --loss 101").unwrap_err().contains("0 to 100"));
        assert!(config("--dev --pair --single").is_err());
        assert!(config("--dev").is_ok());
    }
}
