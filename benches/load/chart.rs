//! A picture of figures along an axis: a panel for each, which begins at 0.

use std::fmt;

use crate::{
    report::number,
    series::{Axis, Line, Series},
};

/// Width of the picture.
const WIDTH: f64 = 640.0;
/// Height of a panel.
const PANEL: f64 = 150.0;
/// Space left of the points, and right of them.
const SIDE: f64 = 80.0;
/// Space above the points of a panel, and below them.
const EDGE: f64 = 36.0;

/// With more points than these only the ends have numbers.
const NUMBERED_MAX: usize = 12;

/// A chart in SVG.
pub(crate) struct Chart<'a> {
    /// What the axis counts.
    pub(crate) unit: &'a str,
    /// The figures.
    pub(crate) series: &'a Series,
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height = PANEL * self.series.lines.len() as f64 + 24.0;
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12">"#
        )?;
        writeln!(f, r##"<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>"##)?;
        for (index, line) in self.series.lines.iter().enumerate() {
            Panel::of(line, self.series.axis, PANEL * index as f64).draw(f)?;
        }
        writeln!(
            f,
            r##"<text x="{}" y="{}" text-anchor="middle" fill="#59636e">{}</text>"##,
            WIDTH / 2.0,
            height - 8.0,
            self.unit
        )?;
        writeln!(f, "</svg>")
    }
}

/// Where the points of one figure lie.
struct Panel<'a> {
    line: &'a Line,
    top: f64,
    /// Across and down.
    places: Vec<(f64, f64)>,
}

impl Panel<'_> {
    fn of(line: &Line, axis: Axis, top: f64) -> Panel<'_> {
        let along = |x: f64| match axis {
            Axis::Powers => x.log10(),
            Axis::Even => x,
        };
        let points = &line.points;
        let highest = points.iter().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
        let from = points.first().map_or(0.0, |(x, _)| along(*x));
        let to = points.last().map_or(1.0, |(x, _)| along(*x));
        let span = if to > from { to - from } else { 1.0 };
        let place = |(x, y): &(f64, f64)| {
            let across = SIDE + (along(*x) - from) / span * (WIDTH - 2.0 * SIDE);
            let down = top + PANEL - EDGE - y / highest * (PANEL - 2.0 * EDGE);
            (across, down)
        };
        Panel { line, top, places: points.iter().map(place).collect() }
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { name, unit, points } = self.line;
        let (top, base) = (self.top, self.top + PANEL - EDGE);
        writeln!(f, r##"<text x="12" y="{}" fill="#1f2328">{name}, {unit}</text>"##, top + 16.0)?;
        writeln!(
            f,
            r##"<line x1="{SIDE}" y1="{base}" x2="{}" y2="{base}" stroke="#d0d7de"/>"##,
            WIDTH - SIDE
        )?;
        let path: Vec<String> =
            self.places.iter().map(|(across, down)| format!("{across:.1},{down:.1}")).collect();
        writeln!(
            f,
            r##"<polyline points="{}" fill="none" stroke="#0b5394" stroke-width="2"/>"##,
            path.join(" ")
        )?;
        let last = points.len().saturating_sub(1);
        for (index, (point, place)) in points.iter().zip(&self.places).enumerate() {
            if points.len() <= NUMBERED_MAX || index == 0 || index == last {
                numbered(f, *point, *place, base)?;
            }
        }
        Ok(())
    }
}

fn numbered(
    f: &mut fmt::Formatter<'_>,
    (x, y): (f64, f64),
    (across, down): (f64, f64),
    base: f64,
) -> fmt::Result {
    writeln!(f, r##"<circle cx="{across:.1}" cy="{down:.1}" r="3" fill="#0b5394"/>"##)?;
    writeln!(
        f,
        r##"<text x="{across:.1}" y="{:.1}" text-anchor="middle" fill="#1f2328">{}</text>"##,
        down - 8.0,
        number(y)
    )?;
    writeln!(
        f,
        r##"<text x="{across:.1}" y="{:.1}" text-anchor="middle" fill="#59636e">{}</text>"##,
        base + 16.0,
        number(x)
    )
}
