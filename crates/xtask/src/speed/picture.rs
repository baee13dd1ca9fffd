//! A start's timeline as a picture: a bar for each step, in the order of time.

use std::fmt::Write as _;

use crate::bench::timeline::Row;

/// Widths and heights, in the picture's own units.
const WIDTH: f64 = 860.0;
const NAMES: f64 = 190.0;
const FIGURES: f64 = 110.0;
const LINE: f64 = 22.0;
const HEAD: f64 = 56.0;

/// At most so many lines of the scale.
const TICKS_MAX: f64 = 12.0;

/// What the steps of the scale are multiples of, in milliseconds.
const STEPS: [f64; 7] = [5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

/// A picture in SVG 1.1 of these lines, which are in the order of time.
pub(super) fn svg(title: &str, rows: &[Row]) -> String {
    let end = rows.last().map_or(1.0, |row| row.at).max(1.0);
    let height = HEAD + LINE * (rows.len() as f64 + 1.0);
    let scale = (WIDTH - NAMES - FIGURES) / end;
    let x = |ms: f64| NAMES + ms * scale;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\" fill=\"#222222\">{}</text>\n",
        escaped(title)
    );
    let step = STEPS.into_iter().find(|step| end / step <= TICKS_MAX);
    let step = step.unwrap_or(end);
    let mut tick = 0.0;
    while tick <= end {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<line x1=\"{0:.1}\" y1=\"{HEAD}\" x2=\"{0:.1}\" y2=\"{1:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\" fill=\"#777777\">{tick:.0}</text>",
            x(tick),
            height - LINE / 2.0,
            HEAD - 6.0
        );
        tick += step;
    }
    let mut from = 0.0;
    for (place, row) in rows.iter().enumerate() {
        let y = HEAD + LINE * place as f64;
        let _ = writeln!(
            text,
            "<text x=\"10\" y=\"{:.1}\" fill=\"#222222\">{}</text>\n\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#444444\">+{:.1} ms</text>",
            y + LINE * 0.7,
            escaped(&row.name),
            x(from),
            y + LINE * 0.2,
            ((row.at - from) * scale).max(1.0),
            LINE * 0.6,
            colour(&row.name),
            x(row.at) + 6.0,
            y + LINE * 0.7,
            row.at - from,
        );
        from = row.at;
    }
    text.push_str("</svg>\n");
    text
}

/// Blue is the host's work, orange the guest's.
fn colour(name: &str) -> &'static str {
    let is_hosts = [
        "exec",
        "prepared",
        "device processes run",
        "spawned",
        "exit",
    ]
    .contains(&name);
    match is_hosts || name.starts_with("machine") {
        true => "#4c78a8",
        false => "#f58518",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_begins_where_the_one_before_ended() {
        let row = |name: &str, at| Row {
            name: name.to_owned(),
            is_point: true,
            at,
            took: 0.0,
        };
        let rows = [
            row("exec", 0.0),
            row("guest: a<b", 60.0),
            row("exit", 100.0),
        ];
        let text = svg("from a template", &rows);
        assert!(text.contains("from a template") && text.contains("guest: a&lt;b"));
        // 560 units are 100 ms.
        assert!(
            text.contains("<rect x=\"190.0\" y=\"82.4\" width=\"336.0\""),
            "{text}"
        );
        assert!(
            text.contains("<rect x=\"526.0\" y=\"104.4\" width=\"224.0\""),
            "{text}"
        );
        assert!(text.contains("+40.0 ms"));
        assert_eq!(text.matches("#f58518").count(), 1);
    }

    #[test]
    fn nothing_is_a_picture_too() {
        assert!(svg("none", &[]).ends_with("</svg>\n"));
    }
}
