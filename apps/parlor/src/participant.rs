//! `parlor participant`: who is in a room, from the command line.

use crate::{
    Failure,
    room::{Server, call, print_json},
};
use clap::Subcommand;
use livekit_protocol as proto;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// `parlor participant ...`
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List who is in a room.
    List {
        #[command(flatten)]
        server: Server,
        /// The room.
        room: String,
    },
    /// Show a participant with its tracks.
    Get {
        #[command(flatten)]
        server: Server,
        /// The room.
        room: String,
        /// The participant.
        identity: String,
    },
    /// Disconnect a participant.
    Remove {
        #[command(flatten)]
        server: Server,
        /// The room.
        room: String,
        /// The participant.
        identity: String,
        /// Bar the tokens that were made for it in this room until now.
        #[arg(long)]
        revoke: bool,
    },
}

/// Runs `parlor participant`.
pub fn run(command: &Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::List { server, room } => {
                let request = json!({ "room": room });
                let answer = call(server, room, "ListParticipants", request).await?;
                if server.json {
                    return print_json(answer);
                }
                let list: proto::ListParticipantsResponse = serde_json::from_value(answer)?;
                print(&list.participants);
            }
            Command::Get { server, room, identity } => {
                let request = json!({ "room": room, "identity": identity });
                let answer = call(server, room, "GetParticipant", request).await?;
                print_json(answer)?;
            }
            Command::Remove { server, room, identity, revoke } => {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // A token of this second is barred too.
                let before = if *revoke { unix.as_secs() + 1 } else { 0 };
                let request = json!({
                    "room": room, "identity": identity, "revokeTokenTs": before.to_string(),
                });
                call(server, room, "RemoveParticipant", request).await?;
                println!("removed {identity}");
            }
        }
        Ok(())
    })
}

fn print(participants: &[proto::ParticipantInfo]) {
    println!("{:<16} {:<32} {:<12} {:>6}", "SID", "IDENTITY", "STATE", "TRACKS");
    for participant in participants {
        println!(
            "{:<16} {:<32} {:<12} {:>6}",
            participant.sid,
            participant.identity,
            participant.state().as_str_name(),
            participant.tracks.len()
        );
    }
}
