//! `parlor room`: the server API from the command line.

use crate::{Failure, token::Key};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use livekit_protocol as proto;
use parlor_signal::{
    Claims,
    token::{self, VideoGrant},
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `parlor room ...`
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List rooms.
    List {
        #[command(flatten)]
        server: Server,
        /// Only these.
        names: Vec<String>,
    },
    /// Create a room, or show the one that has this name.
    Create {
        #[command(flatten)]
        server: Server,
        /// Its name.
        name: String,
        /// Seconds that it lives while nobody has joined.
        #[arg(long, default_value_t = 0)]
        empty_timeout: u32,
        /// Seconds that it lives after everybody has left.
        #[arg(long, default_value_t = 0)]
        departure_timeout: u32,
        /// Most participants.
        #[arg(long, default_value_t = 0)]
        max_participants: u32,
        /// Its metadata.
        #[arg(long, default_value = "")]
        metadata: String,
    },
    /// Delete a room and disconnect who is in it.
    Delete {
        #[command(flatten)]
        server: Server,
        /// Its name.
        name: String,
    },
}

/// Which server, and as whom.
#[derive(Args, Debug)]
pub struct Server {
    /// Where the server is: http://host:port (or ws://).
    #[arg(long, env = "LIVEKIT_URL", default_value = "http://localhost:7880")]
    url: String,
    /// Print the server's answer as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    key: Key,
}

/// Runs `parlor room`.
pub fn run(command: &Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::List { server, names } => {
                let answer = call(server, "", "ListRooms", json!({ "names": names })).await?;
                if server.json {
                    return print_json(answer);
                }
                let list: proto::ListRoomsResponse = serde_json::from_value(answer)?;
                print_rooms(&list.rooms);
            }
            Command::Create { server, name, empty_timeout, departure_timeout, max_participants, metadata } => {
                let request = json!({
                    "name": name, "emptyTimeout": empty_timeout, "departureTimeout": departure_timeout,
                    "maxParticipants": max_participants, "metadata": metadata,
                });
                let answer = call(server, "", "CreateRoom", request).await?;
                if server.json {
                    return print_json(answer);
                }
                print_rooms(&[serde_json::from_value(answer)?]);
            }
            Command::Delete { server, name } => {
                call(server, "", "DeleteRoom", json!({ "room": name })).await?;
                println!("deleted {name}");
            }
        }
        Ok(())
    })
}

/// Prints an answer, without the secret that a room has.
pub fn print_json(mut answer: Value) -> Result<(), Failure> {
    drop_secrets(&mut answer);
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

fn drop_secrets(answer: &mut Value) {
    match answer {
        Value::Object(object) => {
            object.remove("turn_password");
            object.values_mut().for_each(drop_secrets);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_secrets),
        _ => {}
    }
}

fn print_rooms(rooms: &[proto::Room]) {
    println!("{:<16} {:<32} {:>12} {:>10}", "SID", "NAME", "PARTICIPANTS", "PUBLISHERS");
    for room in rooms {
        println!(
            "{:<16} {:<32} {:>12} {:>10}",
            room.sid, room.name, room.num_participants, room.num_publishers
        );
    }
}

/// One Twirp call of `livekit.RoomService`, as administrator of `room` if it is named. Absent
/// messages are left out of the answer.
pub async fn call(
    server: &Server,
    room: &str,
    method: &str,
    request: Value,
) -> Result<Value, Failure> {
    let (key, secret) = server.key.pair()?;
    let (host, authority) = host_of(&server.url)?;
    let exchange = async {
        let stream = TcpStream::connect(&authority)
            .await
            .map_err(|error| format!("cannot reach a server at {authority}: {error}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::post(format!("/twirp/livekit.RoomService/{method}"))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", api_token(key, secret, room)))
            .body(Full::new(Bytes::from(request.to_string())))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, Failure>((status, body.to_bytes()))
    };
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| format!("no answer from {authority}"))??;
    if !status.is_success() {
        return Err(refusal(status, &body).into());
    }
    let mut answer: Value = serde_json::from_slice(&body)?;
    drop_nulls(&mut answer);
    Ok(answer)
}

fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    match error["msg"].as_str() {
        Some(message) => {
            let message = message.trim_start_matches("twirp error unknown: ");
            format!("the server refuses ({status}): {message}")
        }
        None => format!("the server refuses ({status}): {}", String::from_utf8_lossy(body)),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn api_token(key: &str, secret: &str, room: &str) -> String {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let video = VideoGrant {
        room_create: true,
        room_list: true,
        room_admin: !room.is_empty(),
        room: room.to_owned(),
        ..VideoGrant::default()
    };
    let claims = Claims {
        nbf: Some(unix.as_secs()),
        exp: Some((unix + Duration::from_secs(60)).as_secs()),
        video: Some(video),
        ..Claims::default()
    };
    token::sign(&claims, key, secret)
}

/// Host, and host with port, of a URL.
fn host_of(url: &str) -> Result<(String, String), Failure> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("ws://"))
        .ok_or_else(|| format!("--url must begin with http:// or ws:// (no TLS yet): {url}"))?;
    let host = rest.split('/').next().unwrap_or("").to_owned();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let authority = if has_port { host.clone() } else { format!("{host}:80") };
    Ok((host, authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        assert_eq!(host_of("ws://h:7880/x").unwrap().1, "h:7880");
        assert_eq!(host_of("http://h").unwrap().1, "h:80");
        assert_eq!(host_of("http://[::1]:7880").unwrap().1, "[::1]:7880");
        assert!(host_of("h:7880").is_err());
    }
}
