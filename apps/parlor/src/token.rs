//! `parlor token`.

use crate::Failure;
use clap::{Args, Subcommand};
use parlor_config::DEV_KEY;
use parlor_signal::{
    Claims,
    token::{self, VideoGrant},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `parlor token ...`
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make an access token; flags as of `lk token create`.
    Create(Box<Create>),
}

/// The key that signs.
#[derive(Args, Clone, Debug)]
pub struct Key {
    /// API key. Default with --dev: devkey.
    #[arg(long, env = "LIVEKIT_API_KEY")]
    api_key: Option<String>,
    /// Its secret. Default with --dev: secret.
    #[arg(long, env = "LIVEKIT_API_SECRET", hide_env_values = true)]
    api_secret: Option<String>,
    /// Use the key of a server that runs in development mode.
    #[arg(long)]
    dev: bool,
}

impl Key {
    /// Key and secret.
    pub fn pair(&self) -> Result<(&str, &str), Failure> {
        match (&self.api_key, &self.api_secret) {
            (Some(key), Some(secret)) => Ok((key, secret)),
            (None, None) if self.dev => Ok(DEV_KEY),
            _ => Err("an API key and its secret are needed: pass --api-key and --api-secret, \
                      set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or pass --dev"
                .into()),
        }
    }
}

/// Flags of `parlor token create`.
#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    key: Key,
    /// Server, only to print a link that joins.
    #[arg(long, env = "LIVEKIT_URL", default_value = "ws://localhost:7880")]
    url: String,
    /// Who joins.
    #[arg(short, long)]
    identity: Option<String>,
    /// Name that others see. Default: the identity.
    #[arg(short, long)]
    name: Option<String>,
    /// The room that the token is for.
    #[arg(short, long)]
    room: Option<String>,
    /// May join the room.
    #[arg(long)]
    join: bool,
    /// May administer the room.
    #[arg(long)]
    admin: bool,
    /// May create and delete rooms.
    #[arg(long)]
    create: bool,
    /// May list rooms.
    #[arg(long)]
    list: bool,
    /// May use egress.
    #[arg(long)]
    egress: bool,
    /// May use ingress.
    #[arg(long)]
    ingress: bool,
    /// May update its own name, metadata and attributes.
    #[arg(long)]
    allow_update_metadata: bool,
    /// May publish only these sources: camera, microphone, screen_share, screen_share_audio.
    #[arg(long, value_name = "SOURCE", value_parser = ["camera", "microphone", "screen_share", "screen_share_audio"])]
    allow_source: Vec<String>,
    /// Metadata of the participant.
    #[arg(long)]
    metadata: Option<String>,
    /// An attribute of the participant; may be repeated.
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// More grants, as the JSON of the `video` claim.
    #[arg(long, value_name = "JSON")]
    grant: Option<String>,
    /// How long the token is good: 30s, 5m, 2h, 7d or 1h30m.
    #[arg(long, default_value = "5m", value_parser = duration)]
    valid_for: Duration,
    /// Print the token and nothing else.
    #[arg(long)]
    token_only: bool,
}

/// Runs `parlor token`.
pub fn run(command: &Command) -> Result<(), Failure> {
    let Command::Create(create) = command;
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = create.claims(unix_now)?;
    let (key, secret) = create.key.pair()?;
    let token = token::sign(&claims, key, secret);
    if create.token_only {
        println!("{token}");
        return Ok(());
    }
    println!("Identity: {}", claims.identity());
    println!("Grants:   {}", serde_json::to_string(&claims.video)?);
    println!("Token:    {token}");
    if create.join {
        println!(
            "Join:     https://meet.livekit.io/custom?liveKitUrl={}&token={token}",
            create.url
        );
    }
    Ok(())
}

impl Create {
    fn claims(&self, unix_now: Duration) -> Result<Claims, Failure> {
        let mut video: VideoGrant = match &self.grant {
            Some(json) => {
                serde_json::from_str(json).map_err(|error| format!("--grant: {error}"))?
            }
            None => VideoGrant::default(),
        };
        video.room_join |= self.join;
        video.room_admin |= self.admin;
        video.room_create |= self.create;
        video.room_list |= self.list;
        video.room_record |= self.egress;
        video.ingress_admin |= self.ingress;
        video.can_publish_sources.extend(self.allow_source.iter().cloned());
        if self.allow_update_metadata {
            video.can_update_own_metadata = Some(true);
        }
        if let Some(room) = &self.room {
            video.room.clone_from(room);
        }
        if video == (VideoGrant { room: video.room.clone(), ..VideoGrant::default() }) {
            return Err("a token without a grant opens nothing: \
                        pass --join, --admin, --create, --list, --egress, --ingress or --grant"
                .into());
        }
        if (video.room_join || video.room_admin) && video.room.is_empty() {
            return Err("--join and --admin are for one room: pass --room".into());
        }
        if video.room_join && self.identity.is_none() {
            return Err("a participant needs an identity: pass --identity".into());
        }
        let identity = self.identity.clone().unwrap_or_default();
        Ok(Claims {
            name: self.name.clone().unwrap_or_else(|| identity.clone()),
            sub: identity,
            nbf: Some(unix_now.as_secs()),
            exp: Some((unix_now + self.valid_for).as_secs()),
            video: Some(video),
            metadata: self.metadata.clone().unwrap_or_default(),
            attributes: self.attributes.iter().cloned().collect(),
            ..Claims::default()
        })
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must look like key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `1h30m` and its like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fault = || "must look like 30s, 5m, 2h or 1h30m".to_owned();
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
        let (number, tail) = rest.split_at(digits);
        let mut letters = tail.chars();
        let unit: u64 = match letters.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            _ => return Err(fault()),
        };
        let number: u64 = number.parse().map_err(|_| fault())?;
        seconds = number
            .checked_mul(unit)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(fault)?;
        rest = letters.as_str();
    }
    if seconds == 0 || seconds > 100 * 365 * 86400 {
        return Err(fault());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn claims(flags: &str) -> Result<Claims, String> {
        let words = std::iter::once("create").chain(flags.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.create.claims(Duration::from_secs(1000)).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_claims() {
        let claims = claims(
            "--join --room r --identity ann --attribute a=b=c --valid-for 1h30m --allow-source camera \
             --allow-update-metadata --metadata m",
        )
        .unwrap();
        assert_eq!(
            (claims.identity(), claims.name.as_str(), claims.metadata.as_str()),
            ("ann", "ann", "m")
        );
        assert_eq!((claims.nbf, claims.exp), (Some(1000), Some(1000 + 5400)));
        assert_eq!(claims.attributes["a"], "b=c");
        let video = claims.video.unwrap();
        assert!(
            video.room_join && video.room == "r" && video.can_update_own_metadata == Some(true)
        );
        assert_eq!(video.can_publish_sources, ["camera"]);
    }

    #[test]
    fn faults_say_what_to_do() {
        assert!(claims("--identity ann").unwrap_err().contains("--join"));
        assert!(claims("--join --identity ann").unwrap_err().contains("--room"));
        assert!(claims("--join --room r").unwrap_err().contains("--identity"));
        assert!(
            claims("--join --room r --identity a --valid-for soon").unwrap_err().contains("5m")
        );
        assert!(claims("--list --valid-for 0s").is_err());
        assert!(claims("--list").unwrap().video.unwrap().room_list);
        assert!(claims("--grant {\"hidden\":true}").unwrap().video.unwrap().hidden);
    }
}
