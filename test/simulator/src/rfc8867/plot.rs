//! A case as a picture.

use super::{Case, Measured};
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 50.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 24.0;
const COLOURS: [&str; 10] = [
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
    "#bcbd22", "#17becf",
];

/// Capacity in black, estimates as lines, what was received as dots.
pub fn svg(case: &Case, got: &Measured) -> String {
    let highest = case.capacity.iter().map(|(_, bps)| *bps).max().unwrap_or(1) as f64 * 1.2;
    let x = |second: f64| LEFT + (WIDTH - LEFT - 10.0) * second / f64::from(case.seconds);
    let y = |bps: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (bps / highest).min(1.0));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"14\">{} {}: capacity black, estimates lines, received dots \
         (Mbit/s)</text>\n",
        case.section, case.title
    );
    for tick in 0..=4 {
        let bps = highest * f64::from(tick) / 4.0;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"8\" y=\"{:.1}\">{:.1}</text>",
            WIDTH - 10.0,
            y(bps),
            y(bps),
            y(bps) + 4.0,
            bps / 1e6
        );
    }
    for second in (0..=case.seconds).step_by(20) {
        let at = x(f64::from(second));
        let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{:.0}\">{second} s</text>", at, HEIGHT - 10.0);
    }
    let steps = (0..case.seconds).flat_map(|second| {
        let height = y(case.capacity_at(second) as f64);
        [(x(f64::from(second)), height), (x(f64::from(second) + 1.0), height)]
    });
    line(&mut out, steps, "black");
    for (flow, colour) in got.flows.iter().zip(COLOURS.iter().cycle()) {
        let points = flow.iter().enumerate().filter(|(_, second)| second.estimate_bps > 0);
        let place = |at: usize| x(at as f64 + 1.0);
        line(&mut out, points.map(|(at, it)| (place(at), y(it.estimate_bps as f64))), colour);
        for (at, second) in flow.iter().enumerate().filter(|(_, it)| it.received_bps > 0) {
            let (at, height) = (place(at), y(second.received_bps as f64));
            let _ = writeln!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"1.3\" fill=\"{colour}\"/>"
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn line(out: &mut String, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
    let points: String = points.map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>",
        points.trim_end()
    );
}
