// SPDX-License-Identifier: GPL-2.0-or-later
//! The ratios as a bar chart in SVG, a group of bars for each operation.

use std::fmt::Write;

use crate::op::Op;
use crate::sample::Subject;
use crate::summary::Summary;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 180.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 64.0;
const BAR: f64 = 12.0;
const GROUP: f64 = 3.0 * BAR + 14.0;
const BARS: [(&str, &str); 3] = [("overlayfs", "#b8b8b8"), ("reelfs", "#2f6f9f"), ("reelfs and its daemon", "#9cc4df")];

/// The ratios of every operation on one lower filesystem; the mark over a bar is the aim.
pub fn ratios(summary: &Summary, lower: &str) -> String {
    let ops: Vec<Op> = Op::ALL.into_iter().filter(|&op| summary.cost(lower, op, Subject::Direct).is_some()).collect();
    let values = |op| {
        let overlay = summary.ratios(lower, op, Subject::Overlay).map(|(caller, _)| caller);
        let reelfs = summary.ratios(lower, op, Subject::Reelfs);
        [overlay, reelfs.map(|(caller, _)| caller), reelfs.map(|(_, total)| total)]
    };
    let largest = ops.iter().flat_map(|&op| values(op)).flatten().fold(1.5, f64::max);
    let top = (largest * 4.0).ceil() / 4.0;
    let bottom = TOP + ops.len() as f64 * GROUP;
    let height = bottom + 30.0;
    let x = |ratio: f64| LEFT + ratio / top * (WIDTH - LEFT - RIGHT);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">Processor time of an operation, as a ratio to {lower} directly</text>\n"
    );
    let mut at = LEFT;
    for (name, colour) in BARS {
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"46\">{name}</text>",
            at + 17.0
        );
        at += 40.0 + name.len() as f64 * 7.0;
    }
    // A line at every quarter or, where that were too many, at every whole.
    let step = if top > 4.0 { 1.0 } else { 0.25 };
    for tick in 0..=(top / step) as u32 {
        let ratio = f64::from(tick) * step;
        let (colour, line) = if ratio == 1.0 { ("#444444", 1.5) } else { ("#dddddd", 1.0) };
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" y1=\"{TOP}\" x2=\"{0:.1}\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-width=\"{line}\"/>\
             <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\" fill=\"#666666\">{ratio}</text>",
            x(ratio),
            bottom + 18.0
        );
    }
    for (row, &op) in ops.iter().enumerate() {
        let y = TOP + row as f64 * GROUP + 7.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            y + 2.0 * BAR,
            op.title()
        );
        for (bar, (value, (_, colour))) in values(op).into_iter().zip(BARS).enumerate() {
            let Some(value) = value else { continue };
            let y = y + bar as f64 * BAR;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{value:.2}</text>",
                x(value) - LEFT,
                BAR - 1.0,
                x(value) + 4.0,
                y + BAR - 3.0
            );
        }
        if let Some(aim) = op.aim().filter(|_| lower == "ext4") {
            let _ = writeln!(
                svg,
                "<line x1=\"{0:.1}\" y1=\"{1}\" x2=\"{0:.1}\" y2=\"{2}\" stroke=\"#c03030\" stroke-width=\"2\"/>",
                x(aim),
                y + BAR - 2.0,
                y + 2.0 * BAR + 1.0
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
