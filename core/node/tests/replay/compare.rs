//! What our node said, held against what the recorded server said.

use super::World;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub const PERIODIC: [&str; 3] = ["trickle", "room_update", "subscribed_quality_update"];

impl World {
    /// Holds what was said on a socket against what should have been.
    pub fn compare(&mut self, name: &str) {
        self.compare_without(name, &[]);
        let (ours, theirs) = self.comparable(name);
        for identity in ["alice", "bob", "carol"] {
            let states = |messages: &[Value]| states_of(messages, identity);
            assert_same(name, identity, &states(&ours), &states(&theirs));
        }
    }

    /// As [`World::compare`], without participant updates and some other messages.
    pub fn compare_without(&mut self, name: &str, left_out: &[&str]) {
        let (ours, theirs) = self.comparable(name);
        let spoken = |messages: &[Value]| -> Vec<Value> {
            let skipped = |message: &&Value| {
                let case = case(message);
                case != "update" && !PERIODIC.contains(&case) && !left_out.contains(&case)
            };
            let mut spoken: Vec<Value> = messages.iter().filter(skipped).cloned().collect();
            // Which of two tracks came first is a race of the recorded clients.
            let is_race = |message: &Value| case(message) == "track_subscribed";
            for together in spoken.chunk_by_mut(|one, other| is_race(one) && is_race(other)) {
                together.sort_by_key(Value::to_string);
            }
            spoken
        };
        assert_same(name, "messages", &spoken(&ours), &spoken(&theirs));
    }

    /// As [`World::compare_without`], kind by kind: for recordings in which clients said two things
    /// at once, so that it was chance what was answered first, and in how many answers.
    pub fn compare_kinds(&mut self, name: &str, left_out: &[&str]) {
        let (ours, theirs) = self.comparable(name);
        let skipped =
            |kind: &&str| *kind != "update" && !PERIODIC.contains(kind) && !left_out.contains(kind);
        let kinds: BTreeSet<&str> = ours.iter().chain(&theirs).map(case).filter(skipped).collect();
        for kind in kinds {
            let of_kind = |messages: &[Value]| -> Vec<Value> {
                let mut kept: Vec<_> =
                    messages.iter().filter(|it| case(it) == kind).cloned().collect();
                match kind {
                    // What they led to.
                    "answer" | "offer" | "media_sections_requirement" => {
                        kept = kept.pop().into_iter().collect();
                        kept.iter_mut().for_each(|it| it[kind] = json!(tracks_of(&it[kind])));
                    }
                    "track_subscribed" | "subscription_permission_update" => {
                        kept.sort_by_key(Value::to_string);
                    }
                    _ => {}
                }
                kept
            };
            assert_same(name, kind, &of_kind(&ours), &of_kind(&theirs));
        }
    }

    /// Holds what a publisher was told of what its subscribers want against what it should have
    /// been.
    pub fn compare_demand(&mut self, name: &str) {
        let (ours, theirs) = self.comparable(name);
        let demand = |messages: &[Value]| -> Vec<Value> {
            let is_demand = |it: &&Value| case(it) == "subscribed_quality_update";
            let mut kept: Vec<_> = messages.iter().filter(is_demand).cloned().collect();
            kept.dedup();
            kept
        };
        assert_same(name, "demand", &demand(&ours), &demand(&theirs));
    }

    fn comparable(&mut self, name: &str) -> (Vec<Value>, Vec<Value>) {
        self.learn_ids(name);
        let socket = &self.sockets[name];
        let (mut ours, mut theirs) = (socket.said.clone(), socket.recorded.clone());
        for message in &mut theirs {
            self.translate(message);
        }
        for messages in [&mut ours, &mut theirs] {
            messages.iter_mut().for_each(normalise);
            // After `join` the order is not fixed.
            let first_token = messages.iter().position(|m| case(m) == "refresh_token").unwrap();
            messages[1..=first_token].rotate_right(1);
        }
        // LiveKit waits 200 ms before it asks for an offer without the track that has ended;
        // some clients left before.
        if let [.., requirement, _] = &ours[..]
            && ["media_sections_requirement", "offer"].contains(&case(requirement))
            && theirs.iter().rev().nth(1).is_none_or(|last| case(last) != case(requirement))
        {
            ours.remove(ours.len() - 2);
        }
        (ours, theirs)
    }
}

/// The tracks that a description carries, whichever sections.
fn tracks_of(description: &Value) -> Vec<String> {
    let sections = description["mid_to_track_id"].as_object();
    let mut tracks: Vec<_> =
        sections.into_iter().flatten().map(|(_, sid)| sid.to_string()).collect();
    tracks.sort();
    tracks
}

fn assert_same(name: &str, what: &str, ours: &[Value], theirs: &[Value]) {
    let print = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>();
    let (ours, theirs) = (print(ours), print(theirs));
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "{name}: {what} {index}");
    }
    assert_eq!(ours.len(), theirs.len(), "{name}: {what}: ours {ours:#?} theirs {theirs:#?}");
}

pub fn case(message: &Value) -> &str {
    message.as_object().and_then(|fields| fields.keys().next()).map_or("", String::as_str)
}

/// The distinct states of a participant that somebody was told, in order. When those who publish
/// nothing are told of is a matter of batching.
fn states_of(messages: &[Value], identity: &str) -> Vec<Value> {
    let mut states: Vec<Value> = Vec::new();
    let updates = messages.iter().filter_map(|message| message.get("update"));
    for participant in updates.flat_map(|update| update["participants"].as_array().unwrap()) {
        let told_at_once = participant["is_publisher"] == true;
        let of_interest = participant["identity"] == identity && told_at_once;
        if of_interest && states.last() != Some(participant) {
            states.push(participant.clone());
        }
    }
    states
}

/// pbjson writes camelCase, the traces have proto names.
pub fn snake_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let snake = |name: String| {
                // The one field whose proto name is not snake case.
                if name == "candidateInit" {
                    return name;
                }
                name.chars().fold(String::new(), |mut out, c| {
                    if c.is_ascii_uppercase() {
                        out.push('_');
                    }
                    out.push(c.to_ascii_lowercase());
                    out
                })
            };
            let verbatim = ["midToTrackId", "attributes"];
            let convert = |(name, value): (String, Value)| {
                let value =
                    if verbatim.contains(&name.as_str()) { value } else { snake_case(value) };
                (snake(name), value)
            };
            Value::Object(fields.into_iter().map(convert).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(snake_case).collect()),
        value => value,
    }
}

/// Takes out what differs from run to run.
pub fn normalise(value: &mut Value) {
    const VARYING: [&str; 13] = [
        "departure_timeout",
        "ssrc",
        "version",
        "creation_time",
        "creation_time_ms",
        "joined_at",
        "joined_at_ms",
        "turn_password",
        "sif_trailer",
        "node_id",
        "refresh_token",
        "server_version",
        "repair_ssrc",
    ];
    match value {
        Value::Object(fields) => {
            fields.remove("sdp");
            for name in VARYING {
                if let Some(field) = fields.get_mut(name) {
                    *field = json!("*");
                }
            }
            // We fill in the old field from the features that have taken its place.
            if let Some(Value::Array(features)) = fields.get("audio_features")
                && features.contains(&json!("TF_STEREO"))
            {
                fields.remove("stereo");
            }
            if let Some(offer) = fields.get_mut("offer") {
                offer["id"] = json!("*");
            }
            // Of a codec that joins others, LiveKit tells before it is sent what its streams are.
            if let Some(published) = fields.get_mut("track_published") {
                let codecs = published["track"]["codecs"].as_array_mut();
                for codec in codecs.into_iter().flatten() {
                    for layer in codec["layers"].as_array_mut().into_iter().flatten() {
                        layer
                            .as_object_mut()
                            .unwrap()
                            .retain(|name, _| name != "rid" && name != "spatial_layer");
                    }
                }
            }
            if let Some(Value::Object(join)) = fields.get_mut("join")
                && let Some(Value::Object(room)) = join.get_mut("room")
            {
                // Of some seconds ago, if there was anybody then.
                room.remove("num_participants");
                room.remove("num_publishers");
            }
            if let Some(Value::Array(others)) = fields.get_mut("other_participants") {
                others.sort_by_key(|other| other["identity"].to_string());
            }
            if let Some(Value::Array(tracks)) = fields.get_mut("tracks") {
                tracks.sort_by_key(|track| track["sid"].to_string());
                if tracks.is_empty() {
                    fields.remove("tracks");
                }
            }
            // SSRCs of layers appear one by one, and 0 is left out.
            if fields.contains_key("bitrate") {
                fields.insert("ssrc".into(), json!("*"));
            }
            if fields.contains_key("identity") {
                fields.entry("version").or_insert(json!("*"));
            }
            fields.values_mut().for_each(normalise);
        }
        Value::Array(values) => values.iter_mut().for_each(normalise),
        _ => {}
    }
}
