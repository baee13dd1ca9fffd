//! The one statistic that the tables show.

use std::time::Duration;

/// The middle of some times, or of the two in the middle; zero for none.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match sorted.as_slice() {
        [] => Duration::ZERO,
        s if s.len() % 2 == 1 => s[s.len() / 2],
        s => (s[s.len() / 2 - 1] + s[s.len() / 2]) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_many() {
        let ms = |list: &[u64]| {
            list.iter()
                .map(|n| Duration::from_millis(*n))
                .collect::<Vec<_>>()
        };
        assert_eq!(median(&[]), Duration::ZERO);
        assert_eq!(median(&ms(&[5, 1, 3])), Duration::from_millis(3));
        assert_eq!(median(&ms(&[4, 1, 3, 100])), Duration::from_micros(3500));
    }
}
