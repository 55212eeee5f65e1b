//! A participant that takes commands as lines of JSON; see the crate's page.
#![forbid(unsafe_code)]

use parlor_client::Model;
use parlor_player::{Failure, Join, Participant};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

#[derive(Deserialize)]
struct Line {
    id: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "camelCase")]
enum Command {
    Connect { url: String, token: String, options: Options },
    Play { folder: PathBuf, microphone: bool, camera: bool },
    Media {},
    ResetMedia {},
    Faults {},
    Events {},
    Disconnect {},
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    single_peer_connection: bool,
    auto_subscribe: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { single_peer_connection: true, auto_subscribe: true }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut participant = None;
    while let Some(line) = next_line(&mut lines, &mut participant).await? {
        let line: Line = serde_json::from_str(&line)?;
        let answer = match run(line.command, &mut participant).await {
            Ok(result) => json!({ "id": line.id, "result": result }),
            Err(error) => json!({ "id": line.id, "error": error.to_string() }),
        };
        println!("{answer}");
    }
    Ok(())
}

/// The next command, while the participant goes on.
async fn next_line(
    lines: &mut Lines<BufReader<Stdin>>,
    participant: &mut Option<Participant>,
) -> Result<Option<String>, Failure> {
    loop {
        let Some(joined) = participant else { return Ok(lines.next_line().await?) };
        tokio::select! {
            line = lines.next_line() => return Ok(line?),
            step = joined.step() => step?,
        }
    }
}

async fn run(command: Command, slot: &mut Option<Participant>) -> Result<Value, Failure> {
    if let Command::Connect { url, token, options } = command {
        let model = if options.single_peer_connection { Model::Single } else { Model::Pair };
        let join = Join { url, token, model, auto_subscribe: options.auto_subscribe };
        *slot = Some(Participant::join(&join).await?);
        return Ok(Value::Null);
    }
    let participant = slot.as_mut().ok_or("not joined")?;
    Ok(match command {
        Command::Play { folder, microphone, camera } => {
            participant.play(&folder, microphone, camera)?;
            Value::Null
        }
        Command::Media {} => json!(participant.media()),
        Command::ResetMedia {} => {
            participant.reset_media();
            Value::Null
        }
        Command::Faults {} => {
            json!({ "violations": participant.violations(), "missing": participant.missing() })
        }
        Command::Events {} => json!(participant.events()),
        Command::Disconnect {} | Command::Connect { .. } => {
            participant.leave();
            Value::Null
        }
    })
}
