//! A bar for each peer and level, as long as its median, with a line from the least to the most.

use std::fmt::{self, Write};

use super::{
    column::{self, number},
    spread::Spread,
    summary::samples,
};
use crate::{case::Case, peer::Level, run::Results};

/// Width of the names.
const NAMES: f64 = 190.0;
/// Width of the longest bar.
const BARS: f64 = 460.0;
/// Width left for the numbers.
const NUMBERS: f64 = 110.0;
/// Height of a bar with the space below it.
const ROW: f64 = 26.0;
/// Height of the heading.
const HEAD: f64 = 62.0;

/// One bar.
struct Bar {
    name: String,
    level: Level,
    spread: Spread,
}

/// The chart of a case; none when there is nothing to show.
pub(super) fn draw(case: Case, results: &Results) -> Option<String> {
    let column = column::of(case.workload).first()?;
    let bar = |entrant| {
        let values = samples(results, entrant, case);
        let spread =
            Spread::of(values.filter_map(|sample| sample.figures.get(column.key).copied()))?;
        let name = format!("{}, {}", entrant.peer.name(), entrant.level.name());
        Some(Bar { name, level: entrant.level, spread })
    };
    let bars: Vec<Bar> = results.entrants.iter().filter_map(bar).collect();
    let longest = bars.iter().map(|bar| bar.spread.max).fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    let mut page = String::new();
    // Writing to a text cannot fail.
    fill(&mut page, (&case.title(), column.heading), &bars, BARS / longest).ok();
    Some(page)
}

fn fill(page: &mut String, (title, unit): (&str, &str), bars: &[Bar], scale: f64) -> fmt::Result {
    let (width, height) = (NAMES + BARS + NUMBERS, HEAD + ROW * bars.len() as f64 + 10.0);
    writeln!(
        page,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="13">"#
    )?;
    writeln!(page, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##)?;
    writeln!(page, r##"<text x="12" y="24" font-size="16" fill="#1f2328">{title}</text>"##)?;
    writeln!(
        page,
        r##"<text x="12" y="46" fill="#59636e">{unit}; dark: acknowledged after fsync, light: before; line: all rounds</text>"##
    )?;
    for (index, bar) in bars.iter().enumerate() {
        draw_bar(page, bar, HEAD + ROW * index as f64, scale)?;
    }
    writeln!(page, "</svg>")
}

fn draw_bar(page: &mut String, bar: &Bar, top: f64, scale: f64) -> fmt::Result {
    let colour = match bar.level {
        Level::Fsync => "#0b5394",
        Level::Relaxed => "#9fc5e8",
    };
    let Spread { median, min, max } = bar.spread;
    let (length, middle) = (median * scale, top + 9.0);
    let (from, to) = (NAMES + min * scale, NAMES + max * scale);
    let name = &bar.name;
    writeln!(
        page,
        r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#1f2328">{name}</text>"##,
        NAMES - 8.0,
        top + 13.0
    )?;
    writeln!(
        page,
        r#"<rect x="{NAMES}" y="{top}" width="{length:.1}" height="18" fill="{colour}"/>"#
    )?;
    writeln!(
        page,
        r##"<line x1="{from:.1}" y1="{middle}" x2="{to:.1}" y2="{middle}" stroke="#1f2328"/>"##
    )?;
    writeln!(
        page,
        r##"<text x="{:.1}" y="{:.1}" fill="#1f2328">{}</text>"##,
        to.max(NAMES + length) + 6.0,
        top + 13.0,
        number(median)
    )
}
