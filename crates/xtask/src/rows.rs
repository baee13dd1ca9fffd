//! Tables of times: a row for each thing that is measured.

use std::time::Duration;

use crate::bench::table::Table;
use crate::median::median;

/// How often something is measured whose 99th percentile says more than its largest figure.
const OFTEN: usize = 100;

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

    /// The table. Where something was measured often enough, it has a column for the rarest times.
    pub(crate) fn text(&self) -> String {
        let is_often = |figures: &[f64]| figures.len() >= OFTEN;
        let rarest = self.0.iter().any(|(_, figures)| is_often(figures));
        let mut columns = vec!["ms", "runs", "median", "95 %"];
        columns.extend(rarest.then_some("99 %"));
        let mut table = Table::new(&columns);
        for (name, figures) in &self.0 {
            let mut row = vec![
                name.clone(),
                figures.len().to_string(),
                format!("{:.1}", median(figures)),
                format!("{:.1}", percentile(figures, 95)),
            ];
            if rarest {
                let figure = is_often(figures).then(|| percentile(figures, 99));
                row.push(figure.map_or_else(String::new, |figure| format!("{figure:.1}")));
            }
            table.row(row);
        }
        table.markdown()
    }
}

/// The figure that so many of 100 are not above.
fn percentile(figures: &[f64], hundredths: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * hundredths).div_ceil(100);
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_figure_that_was_measured() {
        let figures: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&figures, 95) - 95.0).abs() < f64::EPSILON);
        assert!((percentile(&figures, 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 95) - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_rarest_times_are_told_of_what_was_measured_often() {
        let mut rows = Rows::default();
        rows.add("once", Duration::from_millis(7));
        assert!(!rows.text().contains("99 %"));
        for number in 1..=100 {
            rows.add("often", Duration::from_millis(number));
        }
        let text = rows.text();
        assert!(text.contains("99 %"), "{text}");
        assert!(text.contains("| 50.5 | 95.0 | 99.0 |"), "{text}");
        assert!(text.contains("| 7.0 | 7.0 |  |"), "{text}");
    }
}
