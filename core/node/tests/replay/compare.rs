//! What our node said, held against what the recorded server said.

use super::World;
use serde_json::{Value, json};

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
        let (mut ours, theirs) = self.comparable(name);
        // LiveKit waits 200 ms before it asks for an offer without the track that has ended;
        // some clients left before.
        if let [.., requirement, _] = &ours[..]
            && case(requirement) == "media_sections_requirement"
            && theirs.iter().rev().nth(1).is_none_or(|last| case(last) != case(requirement))
        {
            ours.remove(ours.len() - 2);
        }
        let spoken = |messages: &[Value]| -> Vec<Value> {
            let skipped = |message: &&Value| {
                let case = case(message);
                case != "update" && !PERIODIC.contains(&case) && !left_out.contains(&case)
            };
            messages.iter().filter(skipped).cloned().collect()
        };
        assert_same(name, "messages", &spoken(&ours), &spoken(&theirs));
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
        (ours, theirs)
    }
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
            if let Some(offer) = fields.get_mut("offer") {
                offer["id"] = json!("*");
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
