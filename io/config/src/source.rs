//! A configuration as it was written: the file's tree, with flags and variables laid over it.

use crate::{
    Config, ConfigError,
    keys::{self, Kind},
};
use serde_json::{Map, Value};
use std::time::Duration;

/// A file's content, checked against [`keys::KEYS`], before it becomes a [`Config`].
#[derive(Clone, Default)]
pub struct Source {
    tree: Map<String, Value>,
    remarks: Vec<Remark>,
}

/// Something that was written and does nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// Its line in the file; 0 for a flag or a variable.
    pub line: usize,
    /// The key, and why.
    pub text: String,
}

impl std::fmt::Display for Remark {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => formatter.write_str(&self.text),
            line => write!(formatter, "line {line}: {}", self.text),
        }
    }
}

fn without_effect(path: &str) -> String {
    format!("{path} has no effect: {}", keys::why_not(path))
}

impl Source {
    /// Reads a file's text. An unknown key is an error when `strict`, and else passed over.
    /// Errors never show a value, since any may be secret.
    pub fn from_yaml(yaml: &str, strict: bool) -> Result<Source, ConfigError> {
        if yaml.trim().is_empty() {
            return Ok(Source::default());
        }
        let tree: Value = serde_saphyr::from_str(yaml).map_err(|error| ConfigError::Yaml {
            line: error.location().map_or(0, |location| location.line() as usize),
            fault: error.without_snippet().to_string(),
        })?;
        let mut source = Source::default();
        match tree {
            Value::Null => {}
            Value::Object(tree) => source.tree = source.section(yaml, "", tree, strict)?,
            _ => return Err(ConfigError::Yaml { line: 1, fault: "keys are expected".into() }),
        }
        Ok(source)
    }

    fn section(
        &mut self,
        yaml: &str,
        path: &str,
        section: Map<String, Value>,
        strict: bool,
    ) -> Result<Map<String, Value>, ConfigError> {
        let mut checked = Map::new();
        for (name, value) in section {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let fault = |fault: String| ConfigError::Yaml { line: line_of(yaml, &below), fault };
            if value.is_null() {
                // A key without a value is as good as none, but it must be one.
                if keys::find(&below).is_some() || keys::is_section(&below) || !strict {
                    continue;
                }
            }
            if let Some(key) = keys::find(&below) {
                let value = checked_value(key.kind, value)
                    .ok_or_else(|| fault(format!("{below} must be {}", expected(key.kind))))?;
                if !key.effective {
                    let line = line_of(yaml, &below);
                    self.remarks.push(Remark { line, text: without_effect(key.path) });
                }
                checked.insert(name, value);
            } else if keys::is_section(&below) {
                let Value::Object(inner) = value else {
                    return Err(fault(format!("{below} must have keys below it")));
                };
                let inner = self.section(yaml, &below, inner, strict)?;
                checked.insert(name, Value::Object(inner));
            } else {
                let meant = keys::nearest(path, &name);
                let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
                let text = format!("unknown key {below}{meant}");
                if strict {
                    return Err(fault(text));
                }
                self.remarks.push(Remark { line: line_of(yaml, &below), text });
            }
        }
        Ok(checked)
    }

    /// Lays a flag or a variable over a key with a single value.
    pub fn set(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let wrong = |expected: &str| ConfigError::Value(path.to_owned(), expected.to_owned());
        let key = keys::find(path).ok_or_else(|| wrong("a key"))?;
        let value = match key.kind {
            Kind::Bool => text.parse().ok().map(Value::Bool),
            Kind::Integer => text.parse::<i64>().ok().map(Value::from),
            Kind::Float => text.parse::<f64>().ok().map(Value::from),
            _ => Some(Value::String(text.to_owned())),
        };
        let value = value
            .and_then(|value| checked_value(key.kind, value))
            .ok_or_else(|| wrong(expected(key.kind)))?;
        let mut names: Vec<&str> = path.split('.').collect();
        let last = names.pop().unwrap_or_default();
        let mut section = &mut self.tree;
        for name in names {
            let below = section.entry(name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(below) = below else { return Err(wrong("a section")) };
            section = below;
        }
        section.insert(last.to_owned(), value);
        if !key.effective {
            self.remarks.push(Remark { line: 0, text: without_effect(key.path) });
        }
        Ok(())
    }

    /// Keys that were given and do nothing on this server: LiveKit's that have no effect here,
    /// and, where that is no error, unknown ones.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The configuration.
    pub fn config(self) -> Result<Config, ConfigError> {
        serde_json::from_value(Value::Object(self.tree))
            .map_err(|error| ConfigError::Yaml { line: 0, fault: error.to_string() })
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::Integer => "a whole number",
        Kind::Float => "a number",
        Kind::Text => "a text",
        Kind::Duration => "a time such as 5s, 100ms or 1h30m",
        Kind::Ports => "a port, or a range such as 7882-7889",
        Kind::List => "a list of texts",
        Kind::Map => "names with texts",
        Kind::Structure => "a list or a section",
    }
}

/// The value in the form that [`Config`] reads, if it is of the kind.
fn checked_value(kind: Kind, value: Value) -> Option<Value> {
    match (kind, value) {
        (Kind::Bool, value @ Value::Bool(_)) => Some(value),
        (Kind::Integer, Value::Number(number)) => number.is_i64().then(|| number.into()),
        (Kind::Float, value @ Value::Number(_)) => Some(value),
        (Kind::Text, value) => text_of(value).map(Value::String),
        (Kind::Duration, Value::Number(nanos)) => nanos.as_u64().map(Value::from),
        (Kind::Duration, Value::String(text)) => {
            duration(&text).and_then(|time| u64::try_from(time.as_nanos()).ok()).map(Value::from)
        }
        (Kind::Ports, Value::String(text)) => {
            text.parse::<crate::PortRange>().ok().map(|_| Value::String(text))
        }
        (Kind::Ports, Value::Number(number)) => {
            let is_port = number.as_u64().is_some_and(|port| port <= u64::from(u16::MAX));
            is_port.then(|| number.into())
        }
        (Kind::List, Value::Array(list)) => {
            let texts: Option<Vec<_>> = list.into_iter().map(text_of).collect();
            texts.map(Value::from)
        }
        (Kind::Map, Value::Object(map)) => {
            let texts = map.into_iter().map(|(name, value)| Some((name, text_of(value)?.into())));
            texts.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        (Kind::Structure, value @ (Value::Array(_) | Value::Object(_))) => Some(value),
        _ => None,
    }
}

pub(crate) fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Go's way to write a time: numbers with units, one after the other.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// The line on which a key stands: each name of its path is looked for after the one before.
fn line_of(yaml: &str, path: &str) -> usize {
    let mut names = path.split('.').peekable();
    for (index, line) in yaml.lines().enumerate() {
        let mut line = line.split('#').next().unwrap_or("");
        while let Some(name) = names.peek()
            && let Some(rest) = after_key(line, name)
        {
            names.next();
            line = rest;
        }
        if names.peek().is_none() {
            return index + 1;
        }
    }
    0
}

/// What follows `name:` in a line, if that is in it.
fn after_key<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut from = 0;
    while let Some(found) = line.get(from..)?.find(name) {
        let (start, end) = (from + found, from + found + name.len());
        let before = line.get(..start)?.trim_end_matches(['"', '\'']).chars().next_back();
        let after = line.get(end..)?.trim_start_matches(['"', '\'']).trim_start();
        let begins = before.is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ',' | '-'));
        if begins && let Some(rest) = after.strip_prefix(':') {
            return Some(rest);
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_go() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("7.5s"), Some(Duration::from_millis(7500)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        for bad in ["", "5", "s", "1x", "-1s", "1.2.3s", "99999999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_are_found_on_their_lines() {
        let yaml =
            "# rtc: nothing\nport: 1\nturn:\n  udp_port: 1\nrtc:\n  udp_port: 2\n  \"x\": {y: 1}\n";
        assert_eq!(line_of(yaml, "rtc.udp_port"), 6);
        assert_eq!(line_of(yaml, "rtc.x.y"), 7);
        assert_eq!(line_of(yaml, "absent"), 0);
    }

    #[test]
    fn what_does_nothing_is_named_with_its_line() {
        let yaml = "port: 1\nrtc:\n  udp_prot: 2\n  use_mdns: true\nnope: 3\n";
        let source = Source::from_yaml(yaml, false).unwrap();
        let remarks: Vec<String> = source.remarks().iter().map(Remark::to_string).collect();
        let all = remarks.join("\n");
        assert!(all.contains("line 3: unknown key rtc.udp_prot; did you mean udp_port?"), "{all}");
        assert!(all.contains("line 4: rtc.use_mdns has no effect: names"), "{all}");
        assert!(all.contains("line 5: unknown key nope"), "{all}");
        assert_eq!(remarks.len(), 3);
    }

    #[test]
    fn flags_are_laid_over_the_file() {
        let mut source = Source::from_yaml("room: {empty_timeout: 5}", true).unwrap();
        source.set("room.departure_timeout", "7").unwrap();
        source.set("rtc.use_ice_lite", "true").unwrap();
        source.set("turn.domain", "t.example").unwrap();
        assert!(source.set("room.empty_timeout", "soon").is_err());
        assert!(source.set("keys", "a").is_err() && source.set("nope", "a").is_err());
        let remarks: Vec<String> = source.remarks().iter().map(Remark::to_string).collect();
        assert!(matches!(&remarks[..], [one] if one.starts_with("turn.domain has no effect")));
        let config = source.config().unwrap();
        assert_eq!((config.room.empty_timeout, config.room.departure_timeout), (5, 7));
        assert!(config.rtc.use_ice_lite);
    }
}
