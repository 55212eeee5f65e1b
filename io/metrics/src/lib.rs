//! Metrics in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), and the port that gives them.
//!
//! [`Page`] writes one scrape; [`serve`] answers every path of a listener with it, as LiveKit's
//! metrics port does. The values live with those who count them: this crate holds none, and
//! knows no names. (LiveKit's counters do not all end in `_total`, so OpenMetrics, which would
//! rename them, is not spoken.)
//!
//! ```
//! use parlor_metrics::{Kind, Page};
//!
//! let mut page = Page::new(&[("node_id", "ND_1")]);
//! page.family("livekit_packet_total", Kind::Counter, "Packets of media.");
//! page.value(&[("direction", "incoming")], 5);
//! page.value(&[("direction", "outgoing")], 15);
//! let text = page.finish();
//! assert!(text.contains(r#"livekit_packet_total{node_id="ND_1",direction="outgoing"} 15"#));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod server;

pub use server::{BasicAuth, serve};

use std::fmt::{Display, Write};

/// Of what kind the values of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text of one scrape.
#[derive(Debug)]
pub struct Page {
    text: String,
    /// What every sample carries, written.
    labels: String,
    family: &'static str,
}

impl Page {
    /// A page whose samples all carry these labels.
    pub fn new(labels: &[(&str, &str)]) -> Page {
        let mut page = Page { text: String::new(), labels: String::new(), family: "" };
        page.labels = written(labels);
        page
    }

    /// Begins a family: the samples that follow are of it.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample of the family that was begun last.
    pub fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let (family, own) = (self.family, written(labels));
        let comma = if self.labels.is_empty() || own.is_empty() { "" } else { "," };
        let labels = format!("{}{comma}{own}", self.labels);
        let _ = match labels.is_empty() {
            true => writeln!(self.text, "{family} {value}"),
            false => writeln!(self.text, "{family}{{{labels}}} {value}"),
        };
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value(&[], value);
    }

    /// A histogram: for each of `bounds` the samples up to it and above the one before, then
    /// those above all; and the sum of all samples.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        self.family(name, Kind::Histogram, help);
        self.distribution(&[], bounds, counts, sum);
    }

    /// One more histogram of the family that was begun last, as [`Self::histogram`].
    pub fn distribution(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        let (name, own) = (self.family, written(labels));
        let comma = if self.labels.is_empty() || own.is_empty() { "" } else { "," };
        let labels = &format!("{}{comma}{own}", self.labels);
        let comma = if labels.is_empty() { "" } else { "," };
        let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            let _ = writeln!(self.text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = write!(self.text, "{name}_sum{labels} {sum}\n{name}_count{labels} {total}\n");
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    let escape =
        |value: &str| value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let pairs = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut page = Page::new(&[("n", "1")]);
        page.histogram("h", "H.", &[0.5, 1.0], &[2, 0, 1], 4.25);
        assert_eq!(
            page.finish(),
            "# HELP h H.\n# TYPE h histogram\nh_bucket{n=\"1\",le=\"0.5\"} 2\n\
             h_bucket{n=\"1\",le=\"1\"} 2\nh_bucket{n=\"1\",le=\"+Inf\"} 3\n\
             h_sum{n=\"1\"} 4.25\nh_count{n=\"1\"} 3\n"
        );
    }

    #[test]
    fn samples_stand_under_their_family_and_labels_are_escaped() {
        let mut page = Page::new(&[]);
        page.single("a_total", Kind::Counter, "All of a.", 3);
        page.family("b", Kind::Gauge, "B\nis b.");
        page.value(&[("x", "say \"\\\n\"")], 4);
        assert_eq!(
            page.finish(),
            "# HELP a_total All of a.\n# TYPE a_total counter\na_total 3\n\
             # HELP b B\\nis b.\n# TYPE b gauge\nb{x=\"say \\\"\\\\\\n\\\"\"} 4\n"
        );
    }
}
