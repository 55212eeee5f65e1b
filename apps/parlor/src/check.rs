//! `parlor serve --check`: what a configuration means, before it is served.

use crate::{addresses::MediaAddresses, addresses::processors, serve::tcp_port, settings};
use parlor_config::Config;
use parlor_workers::Announced;
use std::fmt::{Display, Write};

/// Shorter secrets of API keys can be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// What the operator should know of a configuration that is good.
pub fn warnings(config: &Config, dev: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, _) in config.keys.iter().filter(|(_, secret)| secret.len() < SECRET_BYTES_MIN) {
        if !dev {
            warnings.push(format!(
                "the secret of API key {key} is shorter than {SECRET_BYTES_MIN} bytes"
            ));
        }
    }
    if !config.webhook.urls.is_empty() && config.storage.path.is_empty() {
        let text = "no storage.path (--data-dir): webhooks are lost when the process ends";
        warnings.push(text.to_owned());
    }
    warnings
}

/// The page that is printed. It names keys, and shows no secret and nothing that may carry one.
pub fn report(config: &Config, media: &MediaAddresses, mut warnings: Vec<String>) -> String {
    let mut page = "The configuration is good.\n".to_owned();
    let mut row = |name: &str, value: &str| {
        let value = if value.is_empty() { "none" } else { value };
        let _ = writeln!(page, "  {name:<40}{value}");
    };
    let bind: Vec<_> = config.bind_addresses.iter().map(|ip| (*ip, config.port).into()).collect();
    row(
        "HTTP and WebSockets (TCP)",
        &match bind.is_empty() {
            true => format!("port {} of every address", config.port),
            false => list(bind.iter().map(|address: &std::net::SocketAddr| address.to_string())),
        },
    );
    let (udp, threads) = (config.media_ports(processors()), config.media_threads(processors()));
    let tcp = tcp_port(config).map_or(String::new(), |port| format!("port {port}"));
    let threads = match threads {
        1 => String::new(),
        _ if udp.count() == 1 => format!(", shared by {threads} threads"),
        _ => ", a thread for each".to_owned(),
    };
    row("Media (UDP)", &format!("port {udp}{threads}"));
    row("Media (TCP)", &tcp);
    row("Media is listened for on", &list(&media.listen));
    row("Clients are told to send media to", &list(media.announced.iter().map(announced)));
    let servers = settings::ice_servers(config);
    row("Clients are told to ask", &list(servers.iter().flat_map(|of| &of.server.urls)));
    row("API keys", &list(config.keys.keys()));
    let webhook = &config.webhook;
    row(
        "Webhooks",
        &match webhook.urls.len() {
            0 => String::new(),
            count => format!("{count} URLs, signed with key {}", webhook.api_key),
        },
    );
    row(
        "Metrics (TCP)",
        &config.prometheus_port().map_or(String::new(), |port| format!("port {port}")),
    );
    row("What outlives the process is in", &config.storage.path);
    row("Log level", config.log_level());
    page.push_str("Limits (0 is none)\n");
    for (name, value) in limits(config) {
        let _ = writeln!(page, "  {name:<40}{value}");
    }
    warnings.extend(media.warnings.iter().cloned());
    if !warnings.is_empty() {
        page.push_str("Warnings\n");
        for warning in warnings {
            let _ = writeln!(page, "  {warning}");
        }
    }
    page
}

fn announced(address: &Announced) -> String {
    match address.bound {
        Some(bound) if bound != address.announced => {
            format!("{} (here {bound})", address.announced)
        }
        Some(_) => address.announced.to_string(),
        None => format!("{} (not an address of this machine)", address.announced),
    }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// What is in force, configured or not.
fn limits(config: &Config) -> [(&'static str, usize); 19] {
    let (edge, node) = (settings::gateway_limits(config), settings::node_limits(config));
    let room = &config.room;
    [
        ("room.max_participants", room.max_participants as usize),
        ("room.empty_timeout, s", room.empty_timeout as usize),
        ("room.departure_timeout, s", room.departure_timeout as usize),
        ("limit.max_metadata_size", node.metadata_bytes),
        ("limit.max_attributes_size", node.attributes_bytes),
        ("limit.max_room_name_length", node.room_name_bytes),
        ("limit.max_participant_identity_length", edge.names.identity_bytes),
        ("limit.max_participant_name_length", node.name_bytes),
        ("limit.max_data_blob_key_length", node.data_blob_key_bytes),
        ("limit.max_data_blobs_size", node.data_blobs_bytes),
        ("limit.signal_message_size_limit", edge.message_bytes),
        ("limit.agent_signal_message_size_limit", edge.agent_message_bytes),
        ("limit.max_api_request_body_size", edge.body_bytes),
        ("limit.connections_per_address", edge.connections_per_address),
        ("limit.half_open_per_address", edge.half_open_per_address),
        ("limit.sockets_per_key", edge.sockets_per_key),
        ("limit.joins_per_second", edge.joins_per_second as usize),
        ("limit.api_calls_per_second", edge.api_calls_per_second as usize),
        ("webhook.resource_url_notifier.max_depth", {
            let default = parlor_webhook::WebhookConfig::default().max_depth;
            config.webhook.resource_url_notifier.max_depth.unwrap_or(default)
        }),
    ]
}
