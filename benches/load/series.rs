//! Figures along an axis: what a chart draws and a table lists.

use crate::report::Measurement;

/// One figure along the axis.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What it is.
    pub(crate) name: &'static str,
    /// Of what.
    pub(crate) unit: &'static str,
    /// Where on the axis, and how much.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How the axis is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Ten times as much is as far everywhere; no point lies at 0.
    #[default]
    Powers,
    /// As much is as far everywhere.
    Even,
}

/// Name, unit and value of the figures of one point; the same ones at each.
pub(crate) type Figures = Vec<(&'static str, &'static str, f64)>;

/// An axis that was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// How it is divided.
    pub(crate) axis: Axis,
    /// The figures.
    pub(crate) lines: Vec<Line>,
}

impl Series {
    /// Adds a point behind those that are there.
    pub(crate) fn add(&mut self, x: f64, figures: Figures) {
        for (index, (name, unit, value)) in figures.into_iter().enumerate() {
            match self.lines.get_mut(index) {
                Some(line) => line.points.push((x, value)),
                None => self.lines.push(Line { name, unit, points: vec![(x, value)] }),
            }
        }
    }

    /// All of them, named after the axis.
    pub(crate) fn measurements(&self, axis: &str) -> Vec<Measurement> {
        let of = |line: &Line| {
            let Line { name, unit, points } = line.clone();
            let named =
                move |(x, value)| Measurement::new(format!("{axis} {x}: {name}"), value, unit);
            points.into_iter().map(named).collect::<Vec<_>>()
        };
        self.lines.iter().flat_map(of).collect()
    }
}
