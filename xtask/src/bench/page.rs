//! The figures of `bench --net` as a table, a plot and a file for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::net::{LOADS, Load, USER_GOAL_US, at};

const FOLDER: &str = "docs/performance";
const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- cargo xtask bench --net writes from here -->";
const END: &str = "<!-- to here -->";

/// One row for people who wait.
pub fn load_line(load: &Load, row: &Value) -> String {
    format!(
        "{:20} {:6.2} us a packet, {:.2} bare sendtos (goal {:.2}; LiveKit {:.1} us), user {:.2} us \
         (goal {USER_GOAL_US}; LiveKit {:.1}); sendto {:.2}, in runs {:.2}; {:.2} packets a message, \
         {:.0}/s of {:.0} bytes, lost {:.3} %",
        load.name,
        at(row, "/us_per_packet"),
        at(row, "/in_bare_sendtos"),
        load.goal,
        load.livekit.0,
        at(row, "/user_us_per_packet"),
        load.livekit.1,
        at(row, "/bare_sendto_us"),
        at(row, "/run_of_8_us"),
        at(row, "/packets_per_message"),
        at(row, "/packets_per_second"),
        at(row, "/bytes_per_packet"),
        at(row, "/lost_percent"),
    )
}

/// Writes `net.json` and `net.svg`, and the tables into the page. Rows that were not measured now
/// keep their last figures.
pub fn write(root: &Path, found: &Value) -> Result<(), String> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let file = folder.join("net.json");
    let last = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut all: Value = last.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let (Some(all), Some(found)) = (all.as_object_mut(), found.as_object()) {
        all.extend(found.clone());
    }
    let put = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let json = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
    put(&file, &(json + "\n"))?;
    put(&folder.join("net.svg"), &plot(&all))?;
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path).map_err(|error| format!("{PAGE}: {error}"))?;
    let (head, rest) = page.split_once(BEGIN).ok_or(format!("{PAGE} has no {BEGIN}"))?;
    let (_, tail) = rest.split_once(END).ok_or(format!("{PAGE} has no {END}"))?;
    put(&path, &format!("{head}{BEGIN}\n\n{}\n{END}{tail}", tables(&all)))
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**not met**" }
}

fn tables(all: &Value) -> String {
    let mut text = String::new();
    let conditions = &all["conditions"];
    let _ = writeln!(
        text,
        "Linux {}, {}; load average when it began {}.\n",
        conditions["kernel"].as_str().unwrap_or("?"),
        conditions["processor"].as_str().unwrap_or("?"),
        conditions["load_average"].as_str().unwrap_or("?"),
    );
    text += "| work | Parlor | in bare `sendto`s | goal | | of it in user space | goal 0.7 us | LiveKit | its user space | bare `sendto` | in a run of 8 | packets a message | packets/s | lost |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for load in &LOADS {
        let row = &all[load.name];
        if row.is_null() {
            continue;
        }
        let (ratio, user) = (at(row, "/in_bare_sendtos"), at(row, "/user_us_per_packet"));
        let _ = writeln!(
            text,
            "| {} | {:.2} us | {ratio:.2} | {} | {} | {user:.2} us | {} | {} us | {} us | {:.2} us | {:.2} us | {:.2} | {:.0} | {:.3} % |",
            load.name,
            at(row, "/us_per_packet"),
            load.goal,
            verdict(ratio <= load.goal),
            verdict(user <= USER_GOAL_US),
            load.livekit.0,
            load.livekit.1,
            at(row, "/bare_sendto_us"),
            at(row, "/run_of_8_us"),
            at(row, "/packets_per_message"),
            at(row, "/packets_per_second"),
            at(row, "/lost_percent"),
        );
    }
    text += "\n![Microseconds for each forwarded packet](performance/net.svg)\n";
    more(&mut text, all);
    text
}

fn more(text: &mut String, all: &Value) {
    let memory = &all["memory"];
    text.push_str("\n| what | measured | goal | |\n|---|---|---|---|\n");
    let mut line = |what: &str, measured: String, goal: &str, is_met: bool| {
        let _ = writeln!(text, "| {what} | {measured} | {goal} | {} |", verdict(is_met));
    };
    if !memory.is_null() {
        let kib = at(memory, "/kib_per_participant");
        line(
            "memory, 1000 rooms of 2 with audio, each participant",
            format!("{kib:.0} KiB ({:.0} of 2000 connected)", at(memory, "/participants")),
            "100 KiB",
            kib <= 100.0 && at(memory, "/failed") == 0.0,
        );
    }
    for (name, row) in all["joins"].as_object().into_iter().flatten() {
        let (ms, failed) = (at(row, "/cpu_ms_per_join"), at(row, "/failed"));
        line(
            &format!("joins: {name}"),
            format!(
                "{ms:.2} ms of CPU each, {:.0} connected, {failed:.0} failed, to media p50 {:.0} ms, p99 {:.0} ms",
                at(row, "/connected"),
                at(row, "/to_media_p50_ms"),
                at(row, "/to_media_p99_ms"),
            ),
            "2 ms, none fails",
            ms <= 2.0 && failed == 0.0,
        );
    }
    for (name, row) in all["delay"].as_object().into_iter().flatten() {
        let (p50, p99) = (at(row, "/p50_us"), at(row, "/p99_us"));
        let (goal, is_met) = match name.as_str() {
            "fan-out 1" => ("p50 100 us", p50 <= 100.0),
            "fan-out 50" => ("p50 250 us, p99 1500 us", p50 <= 250.0 && p99 <= 1500.0),
            _ => ("p99 5000 us", p99 <= 5000.0),
        };
        let (held, held_p99) = (at(row, "/held_p50_us"), at(row, "/held_p99_us"));
        let measured = format!(
            "p50 {p50:.0} us, p99 {p99:.0} us; what was held: p50 {held:.0} us, p99 {held_p99:.0} us"
        );
        line(&format!("added delay, {name}"), measured, goal, is_met);
    }
    for load in &LOADS {
        let row = &all[load.name];
        let with_us = at(row, "/us_per_packet");
        let without_us = at(row, "/us_without_congestion_control");
        if without_us == 0.0 {
            continue;
        }
        let more = with_us / without_us - 1.0;
        line(
            &format!("congestion control, {}", load.name),
            format!("{with_us:.2} us a packet, {without_us:.2} without: {:+.0} %", 100.0 * more),
            "10 % more",
            more <= 0.1,
        );
    }
    let soak = &all["soak"];
    if let Some(samples) = soak["samples"].as_array().filter(|samples| samples.len() > 1) {
        let ends = |path: &str| {
            let half = samples.len() / 2;
            let mean = |part: &[Value]| {
                part.iter().map(|sample| at(sample, path)).sum::<f64>() / part.len().max(1) as f64
            };
            (mean(&samples[..half]), mean(&samples[half..]))
        };
        let ((pss, pss_then), (cost, cost_then)) = (ends("/pss_mib"), ends("/us_per_packet"));
        line(
            "soak with churn, first half against second",
            format!(
                "{:.0} s, {:.0} joins: PSS {pss:.1} to {pss_then:.1} MiB, {cost:.2} to {cost_then:.2} us a packet",
                at(soak, "/seconds"),
                at(soak, "/joins")
            ),
            "1 h, within 2 %",
            at(soak, "/seconds") >= 3600.0 && pss_then <= pss * 1.02 && cost_then <= cost * 1.02,
        );
    }
}

/// Bars: for each load what Parlor takes (user and kernel) beside LiveKit, a bare `sendto` and a
/// datagram of a run of eight.
fn plot(all: &Value) -> String {
    const WIDTH: f64 = 760.0;
    const LEFT: f64 = 170.0;
    const BAR: f64 = 14.0;
    const GROUP: f64 = 96.0;
    let rows: Vec<_> = LOADS.iter().filter(|load| !all[load.name].is_null()).collect();
    let scale = (WIDTH - LEFT - 60.0) / 40.0;
    let height = 40.0 + GROUP * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"14\">Microseconds of CPU for each forwarded packet \
         (dark: in user space)</text>\n"
    );
    for (at_row, load) in rows.iter().enumerate() {
        let row = &all[load.name];
        let top = 36.0 + GROUP * at_row as f64;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{}\">{}</text>", top + 28.0, load.name);
        let bars = [
            ("LiveKit 1.13.5", load.livekit.0, load.livekit.1, "#d9a3a3", "#a04040"),
            (
                "Parlor",
                at(row, "/us_per_packet"),
                at(row, "/user_us_per_packet"),
                "#9cc3a8",
                "#2f7d4a",
            ),
            ("bare sendto", at(row, "/bare_sendto_us"), 0.0, "#bbbbbb", "#bbbbbb"),
            ("run of 8", at(row, "/run_of_8_us"), 0.0, "#dddddd", "#dddddd"),
        ];
        for (index, (name, all_us, user_us, light, dark)) in bars.into_iter().enumerate() {
            let y = top + (BAR + 4.0) * index as f64;
            for (width_us, colour) in [(all_us, light), (user_us, dark)] {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>",
                    width_us * scale
                );
            }
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{all_us:.1} {name}</text>",
                LEFT + all_us * scale + 4.0,
                y + 11.0
            );
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_say_what_is_met() {
        let all = json!({
            "audio 10 x 50": {"in_bare_sendtos": 1.1, "user_us_per_packet": 0.9, "us_per_packet": 8.0},
            "memory": {"kib_per_participant": 120.0, "participants": 2000, "failed": 0},
        });
        let text = tables(&all);
        assert!(
            text.contains(
                "| audio 10 x 50 | 8.00 us | 1.10 | 1.25 | met | 0.90 us | **not met** |"
            )
        );
        assert!(text.contains("120 KiB (2000 of 2000 connected) | 100 KiB | **not met** |"));
        assert!(plot(&all).contains("8.0 Parlor"));
    }
}
