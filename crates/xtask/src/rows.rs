//! Tables of times: a row for each thing that is measured.

use std::time::Duration;

use crate::median::median;

/// Figures under their names, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<(String, Vec<f64>)>);

impl Rows {
    pub(crate) fn add(&mut self, name: &str, took: Duration) {
        let figure = took.as_secs_f64() * 1000.0;
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.0.push((name.to_owned(), vec![figure])),
        }
    }

    /// The middle of what is under a name, in milliseconds.
    pub(crate) fn median(&self, name: &str) -> f64 {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or(0.0, |(_, figures)| median(figures))
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::from("| ms | runs | median | 95 % |\n|---|---:|---:|---:|\n");
        for (name, figures) in &self.0 {
            let row = format!(
                "| {name} | {} | {:.1} | {:.1} |\n",
                figures.len(),
                median(figures),
                percentile_95(figures)
            );
            text.push_str(&row);
        }
        text
    }
}

/// The figure that 95 of 100 are not above.
fn percentile_95(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * 95).div_ceil(100);
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_percentile_is_a_figure_that_was_measured() {
        let figures: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile_95(&figures) - 95.0).abs() < f64::EPSILON);
        assert!((percentile_95(&[7.0]) - 7.0).abs() < f64::EPSILON);
    }
}
