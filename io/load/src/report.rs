//! What a load saw, for people and for programs.

use crate::{
    config::LoadConfig,
    histogram::{Histogram, Quantiles},
    process::{CpuTime, Memory},
    worker::{LAYERS, Totals, WorkerReport},
};
use parlor_client::Model;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};

/// What a load saw. Rates are of the time measured, which begins some time after all have joined
/// ([`LoadConfig::warm_up`]).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Report {
    pub rooms: usize,
    pub video_publishers: usize,
    pub audio_publishers: usize,
    pub subscribers: usize,
    pub video_codec: &'static str,
    pub model: &'static str,
    pub measured_s: f64,
    pub joins: Joins,
    /// From the server, authentic RTP packets.
    pub received: Traffic,
    /// To the server, RTP and RTCP.
    pub sent: Traffic,
    pub streams: Streams,
    /// How long packets were under way from publisher to subscriber.
    pub delay: Quantiles,
    /// The same while participants were joining.
    pub delay_while_joining: Quantiles,
    pub layers: Vec<Layer>,
    pub own_cpu: Cpu,
    pub server: Option<Server>,
    /// How often what went wrong.
    pub failures: BTreeMap<String, u64>,
}

/// How joining went.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Joins {
    pub started: u64,
    pub connected: u64,
    pub failed: u64,
    pub left: u64,
    pub per_second: f64,
    /// To the server's join answer.
    pub answer: Quantiles,
    /// To a media connection.
    pub connection: Quantiles,
    /// To a subscriber's first packet.
    pub first_packet: Quantiles,
}

/// What went one way while it was measured.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
    pub packets_per_second: f64,
    pub bits_per_second: f64,
}

/// The streams that subscribers received, from beginning to end.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Streams {
    /// As the plan has them, without churn.
    pub planned: u64,
    /// With at least one packet.
    pub received: u64,
    pub packets_expected: u64,
    /// Never came, not even as retransmissions.
    pub packets_lost: u64,
    pub lost_percent: f64,
    /// Came as retransmissions.
    pub packets_repaired: u64,
    pub packets_nacked: u64,
    pub duplicates: u64,
    pub unauthentic: u64,
    pub unknown_ssrc: u64,
    /// Sent again to the server on its request.
    pub retransmitted: u64,
    /// Thrown away on purpose on the way from the server.
    pub thrown_away: u64,
    pub jitter_mean_us: u64,
    pub jitter_max_us: u64,
}

/// One layer as received by all subscribers together.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Layer {
    pub layer: usize,
    pub packets: u64,
    pub bits_per_second: f64,
}

/// CPU time of a process while it was measured.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Cpu {
    pub percent: f64,
    /// In its own code, for each packet that subscribers received.
    pub user_us_per_packet: f64,
    /// In the kernel, for each packet that subscribers received.
    pub system_us_per_packet: f64,
}

/// The server's process.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Server {
    pub cpu: Cpu,
    /// From the first join until measuring begins, media included.
    pub cpu_ms_per_join: f64,
    pub memory_before: Memory,
    pub memory_after: Memory,
    pub pss_bytes_per_participant: u64,
}

/// What the driver measured itself.
pub(crate) struct Measured {
    pub joining: Duration,
    pub time: Duration,
    pub own: CpuTime,
    pub server: Option<MeasuredServer>,
}

pub(crate) struct MeasuredServer {
    pub cpu_joining: CpuTime,
    pub cpu: CpuTime,
    pub before: Memory,
    pub after: Memory,
}

impl Report {
    pub(crate) fn new(config: &LoadConfig, measured: &Measured, workers: &[WorkerReport]) -> Self {
        let merged = |histogram: fn(&WorkerReport) -> &Histogram| {
            let mut all = Histogram::new();
            workers.iter().for_each(|worker| all.merge(histogram(worker)));
            all.quantiles()
        };
        let sum = |count: fn(&Totals) -> u64| workers.iter().map(|w| count(&w.end)).sum::<u64>();
        let window = |count: fn(&Totals) -> u64| {
            workers.iter().map(|w| count(&w.end) - count(&w.mark)).sum::<u64>()
        };
        let seconds = measured.time.as_secs_f64().max(f64::MIN_POSITIVE);
        let traffic = |packets: u64, bytes: u64| Traffic {
            packets,
            bytes,
            packets_per_second: packets as f64 / seconds,
            bits_per_second: bytes as f64 * 8.0 / seconds,
        };
        let received = traffic(window(|t| t.received_packets), window(|t| t.received_bytes));
        let delivered = received.packets + window(|t| t.thrown_away);
        let cpu = |time: CpuTime| Cpu {
            percent: (time.user + time.system).as_secs_f64() / seconds * 100.0,
            user_us_per_packet: per_packet_us(time.user, delivered),
            system_us_per_packet: per_packet_us(time.system, delivered),
        };
        let connected = sum(|t| t.connected);
        let mut failures = BTreeMap::new();
        for (reason, count) in workers.iter().flat_map(|worker| &worker.failures) {
            *failures.entry(reason.clone()).or_default() += count;
        }
        Self {
            rooms: config.rooms,
            video_publishers: config.video_publishers,
            audio_publishers: config.audio_publishers,
            subscribers: config.subscribers,
            video_codec: config.codec.encoding_name(),
            model: if config.model == Model::Pair { "pair" } else { "single" },
            measured_s: measured.time.as_secs_f64(),
            joins: Joins {
                started: sum(|t| t.started),
                connected,
                failed: sum(|t| t.failed),
                left: sum(|t| t.left),
                per_second: connected as f64 / measured.joining.as_secs_f64().max(0.001),
                answer: merged(|w| &w.join_answer),
                connection: merged(|w| &w.join_connected),
                first_packet: merged(|w| &w.join_media),
            },
            received,
            sent: traffic(window(|t| t.sent_packets), window(|t| t.sent_bytes)),
            streams: streams(config, workers),
            delay: merged(|w| &w.delay),
            delay_while_joining: merged(|w| &w.delay_joining),
            layers: layers(workers, seconds),
            own_cpu: cpu(measured.own),
            server: measured.server.as_ref().map(|server| Server {
                cpu: cpu(server.cpu),
                cpu_ms_per_join: (server.cpu_joining.user + server.cpu_joining.system)
                    .as_secs_f64()
                    * 1000.0
                    / connected.max(1) as f64,
                memory_before: server.before,
                memory_after: server.after,
                pss_bytes_per_participant: server
                    .after
                    .pss_bytes
                    .saturating_sub(server.before.pss_bytes)
                    / connected.max(1),
            }),
            failures,
        }
    }
}

fn per_packet_us(time: Duration, packets: u64) -> f64 {
    time.as_secs_f64() * 1e6 / packets.max(1) as f64
}

fn streams(config: &LoadConfig, workers: &[WorkerReport]) -> Streams {
    let mut counters = parlor_client::MediaCounters::default();
    workers.iter().for_each(|worker| counters += worker.counters);
    let sum = |count: fn(&WorkerReport) -> u64| workers.iter().map(count).sum::<u64>();
    let received = sum(|w| w.streams.streams);
    let expected = sum(|w| w.streams.expected);
    let lost = expected.saturating_sub(sum(|w| w.streams.received));
    let jitter_sum: Duration = workers.iter().map(|w| w.streams.jitter_sum).sum();
    let jitter_max = workers.iter().map(|w| w.streams.jitter_max).max().unwrap_or_default();
    Streams {
        planned: (config.rooms * config.tracks_per_room()) as u64,
        received,
        packets_expected: expected,
        packets_lost: lost,
        lost_percent: lost as f64 * 100.0 / expected.max(1) as f64,
        packets_repaired: counters.repaired,
        packets_nacked: counters.nacked,
        duplicates: counters.duplicates,
        unauthentic: counters.unauthentic,
        unknown_ssrc: counters.unknown_ssrc,
        retransmitted: counters.retransmitted,
        thrown_away: sum(|w| w.end.thrown_away),
        jitter_mean_us: jitter_sum.as_micros() as u64 / received.max(1),
        jitter_max_us: jitter_max.as_micros() as u64,
    }
}

fn layers(workers: &[WorkerReport], seconds: f64) -> Vec<Layer> {
    (0..LAYERS)
        .map(|layer| {
            let (mut packets, mut bytes) = (0, 0);
            for worker in workers {
                packets += worker.end.layers[layer].0 - worker.mark.layers[layer].0;
                bytes += worker.end.layers[layer].1 - worker.mark.layers[layer].1;
            }
            Layer { layer, packets, bits_per_second: bytes as f64 * 8.0 / seconds }
        })
        .collect()
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2} ms",
            ms(self.p50_us),
            ms(self.p90_us),
            ms(self.p99_us),
            ms(self.max_us)
        )
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets, {:.1} MB ({:.0}/s, {:.2} Mbit/s)",
            self.packets,
            self.bytes as f64 / 1e6,
            self.packets_per_second,
            self.bits_per_second / 1e6
        )
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} us a packet: user {:.2}, system {:.2} ({:.0} % of a CPU)",
            self.user_us_per_packet + self.system_us_per_packet,
            self.user_us_per_packet,
            self.system_us_per_packet,
            self.percent
        )
    }
}

impl fmt::Display for Report {
    /// A table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Joins { started, connected, failed, left, per_second, .. } = self.joins;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let s = &self.streams;
        writeln!(f, "measured          {:.1} s", self.measured_s)?;
        writeln!(
            f,
            "joins             {connected} of {started}, {failed} failed, {left} left, {per_second:.1}/s"
        )?;
        writeln!(f, "  join answer     {}", self.joins.answer)?;
        writeln!(f, "  media connected {}", self.joins.connection)?;
        writeln!(f, "  first packet    {}", self.joins.first_packet)?;
        writeln!(f, "received          {}", self.received)?;
        writeln!(f, "sent              {}", self.sent)?;
        writeln!(f, "streams           {} of {}", s.received, s.planned)?;
        writeln!(
            f,
            "  lost            {} of {} packets ({:.3} %), {} repaired, {} asked for, {} twice",
            s.packets_lost,
            s.packets_expected,
            s.lost_percent,
            s.packets_repaired,
            s.packets_nacked,
            s.duplicates
        )?;
        writeln!(
            f,
            "  jitter          mean {:.2} ms, max {:.2} ms",
            s.jitter_mean_us as f64 / 1000.0,
            s.jitter_max_us as f64 / 1000.0
        )?;
        if s.unauthentic + s.unknown_ssrc + s.retransmitted + s.thrown_away > 0 {
            writeln!(
                f,
                "  other           {} unauthentic, {} of unknown streams, {} sent again, {} thrown away",
                s.unauthentic, s.unknown_ssrc, s.retransmitted, s.thrown_away
            )?;
        }
        writeln!(f, "forwarding delay  {}", self.delay)?;
        writeln!(f, "  while joining   {}", self.delay_while_joining)?;
        for layer in self.layers.iter().filter(|layer| layer.packets > 0) {
            writeln!(
                f,
                "layer {}           {} packets, {:.2} Mbit/s",
                layer.layer,
                layer.packets,
                layer.bits_per_second / 1e6
            )?;
        }
        writeln!(f, "own CPU           {}", self.own_cpu)?;
        if let Some(server) = &self.server {
            writeln!(f, "server CPU        {}", server.cpu)?;
            writeln!(f, "  joining         {:.2} ms a join", server.cpu_ms_per_join)?;
            writeln!(
                f,
                "server memory     RSS {:.1} to {:.1} MiB, PSS {:.1} to {:.1} MiB, {} KiB a participant",
                mib(server.memory_before.rss_bytes),
                mib(server.memory_after.rss_bytes),
                mib(server.memory_before.pss_bytes),
                mib(server.memory_after.pss_bytes),
                server.pss_bytes_per_participant / 1024
            )?;
        }
        for (reason, count) in &self.failures {
            writeln!(f, "failure           {count} x {reason}")?;
        }
        Ok(())
    }
}
