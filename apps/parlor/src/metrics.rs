//! The metrics page and the debug view, from what the control thread and the edges count.

use crate::{
    control::{Counted, Order, Shown},
    process,
};
use parlor_gateway::{Answered, Gateway, LATENCY_BOUNDS_US, RoomsQuestion};
use parlor_metrics::{Kind, Page};
use parlor_model::{PeerId, SubscriptionId};
use parlor_node::{ParticipantSnapshot, RoomSnapshot, Statistics};
use parlor_sfu::{
    DecisionReport, Experience, Experiences, JITTER_BOUNDS_US, LinkReport, ROUND_TRIP_BOUNDS_US,
};
use parlor_webhook::Webhooks;
use parlor_workers::{HalfOpenCounters, HandoverCounters, TcpPeerCounters, WorkerCounters};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};

/// Writes the page.
#[derive(Clone)]
pub struct Metrics {
    /// Asked for totals.
    pub orders: mpsc::Sender<Order>,
    /// Counts calls and sockets.
    pub gateway: Gateway,
    /// Counts deliveries.
    pub webhooks: Option<Webhooks>,
}

impl Metrics {
    /// One scrape; empty if the control thread has ended.
    pub async fn page(self) -> String {
        let (answer, totals) = oneshot::channel();
        let _ = self.orders.send(Order::Count(answer)).await;
        let Ok(mut totals) = totals.await else { return String::new() };
        let mut workers = Vec::new();
        for told in std::mem::take(&mut totals.workers) {
            workers.extend(told.await);
        }
        let mut page = Page::new(&[("node_id", &totals.node_id), ("node_type", "SERVER")]);
        self.write_node(&mut page, &totals);
        write_media(&mut page, &workers);
        write_experiences(&mut page, &workers);
        write_tcp(&mut page, totals.half_open, &workers);
        self.write_edges(&mut page);
        process::write(&mut page);
        page.finish()
    }

    fn write_node(&self, page: &mut Page, totals: &Counted) {
        let counts = totals.counts;
        for (name, help, value) in [
            ("livekit_room_total", "Rooms.", counts.rooms),
            ("livekit_participant_total", "Participants.", counts.participants),
            ("parlor_peers", "Peer connections.", counts.peers),
            ("parlor_agent_workers", "Agent workers.", counts.agents.workers),
            ("parlor_agent_jobs_running", "Jobs of agents.", counts.agents.jobs_running),
            ("parlor_agent_jobs_waiting", "Jobs without a worker.", counts.agents.jobs_waiting),
            ("parlor_sockets", "Open WebSockets.", self.gateway.sockets()),
        ] {
            page.single(name, Kind::Gauge, help, value as u64);
        }
        for (name, help, [audio, video]) in [
            ("livekit_track_published_total", "Published tracks.", counts.published),
            ("livekit_track_subscribed_total", "Subscriptions.", counts.subscribed),
        ] {
            page.family(name, Kind::Gauge, help);
            page.value(&[("kind", "AUDIO")], audio);
            page.value(&[("kind", "VIDEO")], video);
        }
        self.write_sessions(page, &totals.statistics);
        let of = totals.counters;
        page.family("parlor_signal_faults_total", Kind::Counter, "What clients sent in vain.");
        for (kind, value) in [
            ("malformed_frame", of.malformed_frames),
            ("refused_offer", of.refused_offers),
            ("refused_answer", of.refused_answers),
            ("malformed_packet", of.malformed_packets),
            ("forbidden_packet", of.forbidden_packets),
            ("repeated_packet", of.repeated_packets),
            ("lost_packet", of.lost_packets),
        ] {
            page.value(&[("kind", kind)], value);
        }
    }

    fn write_sessions(&self, page: &mut Page, of: &Statistics) {
        let name = "livekit_participant_join_total";
        page.family(name, Kind::Counter, "How far participants have come.");
        let refused = of.signal_validation_failed + self.gateway.joins_refused();
        for (state, value) in [
            ("signal_connected", of.signal_connected),
            ("signal_failed", of.signal_failed),
            ("signal_validation_failed", refused),
            ("rtc_init", of.rtc_init),
            ("rtc_connected", of.rtc_active),
            ("rtc_active", of.rtc_active),
        ] {
            page.value(&[("state", state)], value);
        }
        let name = "livekit_track_publish_counter";
        page.family(name, Kind::Counter, "Tracks that were announced, and published.");
        for (kind, publish) in ["AUDIO", "VIDEO"].into_iter().zip(of.publish) {
            page.value(&[("kind", kind), ("state", "attempt")], publish.attempts);
            page.value(&[("kind", kind), ("state", "success")], publish.successes);
        }
        let name = "livekit_track_subscribe_counter";
        page.family(name, Kind::Counter, "Subscriptions that began, and that were agreed on.");
        page.value(&[("state", "attempt"), ("error", "")], of.subscribe.attempts);
        page.value(&[("state", "success"), ("error", "")], of.subscribe.successes);
        for (name, help, values) in [
            ("livekit_room_duration_seconds", "Life of rooms.", &of.room_duration_seconds),
            ("livekit_session_start_time_ms", "Join until media.", &of.session_start_time_ms),
            ("livekit_session_duration_ms", "Media until the end.", &of.session_duration_ms),
        ] {
            page.histogram(name, help, &values.bounds, &values.counts, values.sum);
        }
    }

    fn write_edges(&self, page: &mut Page) {
        let name = "livekit_node_twirp_request_status";
        page.family(name, Kind::Counter, "Answers of the server API.");
        let answered = self.gateway.answered();
        for (path, answers) in &answered {
            let [service, method] = service_and_method(path);
            for (status, count) in &answers.by_status {
                let outcome = if *status < 400 { "success" } else { "failure" };
                let code = status.to_string();
                let status = [("status", outcome), ("code", &code)];
                page.value(&[service, method, status[0], status[1]], count);
            }
        }
        let name = "livekit_node_twirp_request_latency_ms";
        page.family(name, Kind::Histogram, "How long the server API takes to answer.");
        let bounds_ms = LATENCY_BOUNDS_US.map(|us| us as f64 / 1e3);
        for (path, Answered { latency, .. }) in &answered {
            let labels = service_and_method(path);
            page.distribution(&labels, &bounds_ms, &latency.counts, latency.sum_us as f64 / 1e3);
        }
        let help = "Connections, joins and calls refused because of limits.";
        page.single("parlor_limited_total", Kind::Counter, help, self.gateway.refused());
        let Some(webhooks) = &self.webhooks else { return };
        let counters = webhooks.counters();
        let name = "livekit_webhook_dispatch_total";
        page.family(name, Kind::Counter, "What became of webhooks.");
        for (status, value) in [
            ("success", counters.delivered),
            ("retry", counters.retried),
            ("refused", counters.refused),
            ("expired", counters.expired),
            ("dropped", counters.dropped),
        ] {
            page.value(&[("status", status)], value);
        }
        let help = "Webhooks that wait for their delivery.";
        page.single("livekit_webhook_queue_length", Kind::Gauge, help, counters.queued);
    }
}

fn service_and_method(path: &str) -> [(&str, &str); 2] {
    let mut parts = path.rsplit('/');
    let (method, service) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    [("service", service.trim_start_matches("livekit.")), ("method", method)]
}

/// What is lost and late between the server and its peers. The direction is that of the media.
fn write_experiences(page: &mut Page, workers: &[WorkerCounters]) {
    let sum = |of: fn(&Experiences) -> Experience| {
        let mut sum = Experience::default();
        workers.iter().for_each(|worker| sum += of(&worker.experiences));
        sum
    };
    let directions = [
        (("direction", "incoming"), sum(|of| of.published)),
        (("direction", "outgoing"), sum(|of| of.subscribed)),
    ];
    let name = "livekit_packet_loss_total";
    page.family(name, Kind::Counter, "Media packets that were lost, and not repaired by then.");
    for (direction, of) in &directions {
        page.value(&[*direction], of.lost);
    }
    let name = "parlor_packets_expected_total";
    page.family(name, Kind::Counter, "Media packets of which livekit_packet_loss_total tells.");
    for (direction, of) in &directions {
        page.value(&[*direction], of.expected);
    }
    page.family("livekit_jitter_us", Kind::Histogram, "Jitter of streams, every five seconds.");
    let bounds_us = JITTER_BOUNDS_US.map(|us| us as f64);
    for (direction, Experience { jitter, .. }) in &directions {
        page.distribution(&[*direction], &bounds_us, &jitter.counts, jitter.sum_us as f64);
    }
    page.family("livekit_rtt_ms", Kind::Histogram, "Round trips of streams, every five seconds.");
    let bounds_ms = ROUND_TRIP_BOUNDS_US.map(|us| us as f64 / 1e3);
    for (direction, Experience { round_trip: rtt, .. }) in &directions {
        page.distribution(&[*direction], &bounds_ms, &rtt.counts, rtt.sum_us as f64 / 1e3);
    }
}

fn write_media(page: &mut Page, workers: &[WorkerCounters]) {
    let sum = |of: fn(&WorkerCounters) -> u64| workers.iter().map(of).sum::<u64>();
    let again = sum(|w| w.shard.retransmissions_sent);
    let received = sum(|w| w.shard.rtp_received);
    page.family("livekit_packet_total", Kind::Counter, "Media packets, authenticated.");
    for (direction, transmission, packets) in [
        ("incoming", "initial", received.saturating_sub(sum(|w| w.shard.repaired))),
        ("incoming", "retransmit", sum(|w| w.shard.repaired)),
        ("outgoing", "initial", sum(|w| w.shard.rtp_sent).saturating_sub(again)),
        ("outgoing", "retransmit", again),
    ] {
        page.value(&[("direction", direction), ("transmission", transmission)], packets);
    }
    page.family("livekit_packet_bytes", Kind::Counter, "Payload of UDP datagrams and TCP frames.");
    for (direction, bytes) in [
        ("incoming", sum(|w| w.net.received_bytes + w.tcp.net.received_bytes)),
        ("outgoing", sum(|w| w.net.sent_bytes + w.tcp.net.sent_bytes)),
    ] {
        page.value(&[("direction", direction)], bytes);
    }
    let name = "parlor_relays_lost_total";
    page.single(
        name,
        Kind::Counter,
        "Packets that other media threads had no room for.",
        sum(|w| w.relays_lost),
    );
    let handovers = |of: fn(&HandoverCounters) -> u64| {
        workers.iter().map(|worker| of(&worker.handovers)).sum::<u64>()
    };
    let help = "Datagrams that came to one media thread and went on to the one that they are for.";
    let name = "parlor_handovers_total";
    page.single(name, Kind::Counter, help, handovers(|of| of.handed_over));
    let name = "parlor_handovers_lost_total";
    page.family(name, Kind::Counter, "Such datagrams that did not go on, by cause.");
    page.value(&[("kind", "full")], handovers(|of| of.full));
    page.value(&[("kind", "too_long")], handovers(|of| of.too_long));
    let name = "parlor_retransmissions_total";
    page.single(name, Kind::Counter, "Packets sent again.", again);
    // The direction is that of the media.
    let [sent, received] =
        [sum(|w| w.shard.packets_nacked_by_us), sum(|w| w.shard.packets_nacked_by_peers)];
    let [plis, keyframes] = [sum(|w| w.shard.plis_sent), sum(|w| w.shard.plis_received)];
    let firs = sum(|w| w.shard.firs_received);
    for (name, help, incoming, outgoing) in [
        ("livekit_nack_total", "Packets asked for again.", sent, received),
        ("livekit_pli_total", "Keyframes asked for by PLI.", plis, keyframes.saturating_sub(firs)),
        ("livekit_fir_total", "Keyframes asked for by FIR.", 0, firs),
    ] {
        page.family(name, Kind::Counter, help);
        page.value(&[("direction", "incoming")], incoming);
        page.value(&[("direction", "outgoing")], outgoing);
    }
    let mut delay = parlor_workers::AddedDelay::default();
    workers.iter().for_each(|worker| delay += worker.added_delay);
    let name = "parlor_added_delay_seconds";
    let help = "From the kernel's receive stamp to the send, of media that no pacer held.";
    write_histogram(page, name, help, &parlor_workers::DELAY_BOUNDS_US, &delay);
    let mut held = parlor_sfu::Held::default();
    workers.iter().for_each(|worker| held += worker.held);
    let name = "parlor_held_seconds";
    let help =
        "How long media was held that did not leave at once: by the pacer, or to leave together.";
    write_histogram(page, name, help, &parlor_sfu::HELD_BOUNDS_US, &held);
    let help = "What went through the media threads, and not, by cause.";
    write_by_worker(page, workers, "parlor_media_total", help, |w| w.shard.entries());
    let help = "What went through the UDP sockets, and not.";
    write_by_worker(page, workers, "parlor_socket_total", help, |w| w.net.entries());
}

fn write_histogram<const N: usize>(
    page: &mut Page,
    name: &'static str,
    help: &str,
    bounds_us: &[u64],
    samples: &parlor_model::Histogram<N>,
) {
    let bounds_s: Vec<_> = bounds_us.iter().map(|us| *us as f64 / 1e6).collect();
    page.histogram(name, help, &bounds_s, &samples.counts, samples.sum_us as f64 / 1e6);
}

/// Peers over TCP: what went through their connections, and what became of these.
fn write_tcp(page: &mut Page, half_open: Option<HalfOpenCounters>, workers: &[WorkerCounters]) {
    let Some(half_open) = half_open else { return };
    let open = workers.iter().map(|worker| worker.tcp.open).sum::<u64>();
    page.single("parlor_tcp_connections", Kind::Gauge, "Open TCP connections of peers.", open);
    let name = "parlor_tcp_connections_total";
    page.family(name, Kind::Counter, "What became of TCP connections of peers.");
    for (kind, value) in half_open.entries() {
        page.value(&[("kind", kind)], value);
    }
    let sum = |of: fn(&TcpPeerCounters) -> u64| workers.iter().map(|w| of(&w.tcp)).sum::<u64>();
    for (kind, value) in [
        ("peer_opened", sum(|tcp| tcp.opened)),
        ("peer_closed", sum(|tcp| tcp.closed)),
        ("peer_malformed", sum(|tcp| tcp.malformed)),
        ("peer_idle", sum(|tcp| tcp.idle)),
        ("peer_unknown", sum(|tcp| tcp.unknown)),
        ("peer_refused", sum(|tcp| tcp.refused)),
    ] {
        page.value(&[("kind", kind)], value);
    }
    let help = "What went through the TCP connections of peers, and not.";
    write_by_worker(page, workers, "parlor_tcp_total", help, |w| w.tcp.net.entries());
}

fn write_by_worker<const N: usize>(
    page: &mut Page,
    workers: &[WorkerCounters],
    name: &'static str,
    help: &str,
    entries: fn(&WorkerCounters) -> [(&'static str, u64); N],
) {
    page.family(name, Kind::Counter, help);
    for (index, worker) in workers.iter().enumerate() {
        let worker_label = index.to_string();
        for (kind, value) in entries(worker) {
            page.value(&[("worker", &worker_label), ("kind", kind)], value);
        }
    }
}

/// Answers the gateway's questions for the debug view, until there is no gateway.
pub async fn show_rooms(mut questions: mpsc::Receiver<RoomsQuestion>, orders: mpsc::Sender<Order>) {
    while let Some(question) = questions.recv().await {
        let (answer, rooms) = oneshot::channel();
        let _ = orders.send(Order::Show(answer)).await;
        let Ok(Shown { rooms, links: told }) = rooms.await else { return };
        let mut links = BTreeMap::new();
        for told in told {
            // A media thread that has ended says nothing.
            for link in told.await.unwrap_or_default() {
                links.insert(link.peer, link);
            }
        }
        let shown: Vec<Value> = rooms.iter().map(|room| show_room(room, &links)).collect();
        let _ = question.send(Value::from(shown).to_string());
    }
}

/// The keys that LiveKit's debug view has, and ours.
fn show_room(room: &RoomSnapshot, links: &BTreeMap<PeerId, LinkReport>) -> Value {
    let show = |participant: &ParticipantSnapshot| {
        let info = &participant.info;
        let of_peer = |peer: &PeerId| Some(show_link(participant, links.get(peer)?));
        let shown = json!({
            "info": info,
            "hasSocket": participant.has_socket,
            "subscriptions": participant.subscriptions.iter().map(|(t, _)| t.as_str()).collect::<Vec<_>>(),
            "links": participant.peers.iter().filter_map(of_peer).collect::<Vec<_>>(),
        });
        (info.identity.clone(), shown)
    };
    json!({
        "Name": room.room.name,
        "Sid": room.room.sid,
        "CreatedAt": room.room.creation_time,
        "Tags": room.tags,
        "Room": room.room,
        "Participants": room.participants.iter().map(show).collect::<serde_json::Map<_, _>>(),
    })
}

/// What the way to a participant carries, why its tracks are as they are, and the newest changes.
fn show_link(participant: &ParticipantSnapshot, link: &LinkReport) -> Value {
    let track = |id: SubscriptionId| {
        let known = participant.subscriptions.iter().find(|(_, known)| *known == id);
        known.map_or("", |(track, _)| track.as_str())
    };
    let tracks = link.subscriptions.iter().map(|(id, why)| (track(*id).to_owned(), json!(why)));
    let decision = |decision: &DecisionReport| {
        json!({
            "secondsAgo": decision.ago.as_secs_f64(),
            "track": track(decision.subscription),
            "why": decision.reason,
            "link": decision.link,
        })
    };
    json!({
        "estimate": link.link,
        "tracks": tracks.collect::<serde_json::Map<_, _>>(),
        "decisions": link.decisions.iter().map(decision).collect::<Vec<_>>(),
    })
}
