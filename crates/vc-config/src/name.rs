//! Names for sandboxes that nobody named.

use vc_types::SandboxId;

const ADJECTIVES: [&str; 64] = [
    "able", "airy", "amber", "apt", "bold", "brave", "brisk", "calm", "clear", "clever", "cool",
    "crisp", "deft", "eager", "early", "easy", "fair", "fast", "fine", "firm", "fond", "fresh",
    "gentle", "glad", "golden", "grand", "green", "happy", "hardy", "honest", "keen", "kind",
    "late", "light", "lively", "loyal", "lucky", "mellow", "merry", "mild", "neat", "nimble",
    "noble", "patient", "plain", "proud", "quick", "quiet", "rapid", "ready", "sharp", "shy",
    "silver", "simple", "smart", "solid", "steady", "sunny", "swift", "tidy", "true", "warm",
    "wise", "young",
];

const NOUNS: [&str; 64] = [
    "acorn", "badger", "beacon", "birch", "bridge", "brook", "cedar", "cliff", "cloud", "comet",
    "coral", "cove", "crane", "delta", "dune", "ember", "falcon", "fern", "finch", "fjord",
    "forest", "fox", "garden", "glade", "harbor", "hazel", "heron", "hill", "island", "ivy",
    "jasper", "kestrel", "lagoon", "lake", "lantern", "lark", "maple", "marsh", "meadow", "moon",
    "moss", "oak", "ocean", "orchid", "otter", "owl", "pebble", "pine", "plover", "pond",
    "prairie", "raven", "reef", "river", "robin", "sail", "spruce", "star", "stone", "thistle",
    "tide", "valley", "willow", "wren",
];

/// A name that can be read aloud, such as `quiet_heron_4f1c`.
///
/// Two of them may be equal; the store refuses the second, and its caller asks for another.
///
/// # Errors
///
/// [`vc_types::Error::InvalidId`], which does not happen: every name is checked as any other id.
///
/// ```
/// let name = vc_config::random_name()?;
/// assert_eq!(name.as_str().split('_').count(), 3);
/// # Ok::<(), vc_types::Error>(())
/// ```
pub fn random_name() -> vc_types::Result<SandboxId> {
    name_from(random())
}

fn name_from(random: u64) -> vc_types::Result<SandboxId> {
    let pick = |words: &'static [&'static str], bits: u64| {
        let index = usize::try_from(bits).unwrap_or_default() % words.len();
        words.get(index).copied().unwrap_or("sandbox")
    };
    let adjective = pick(&ADJECTIVES, random & 0xff);
    let noun = pick(&NOUNS, (random >> 8) & 0xff);
    SandboxId::new(format!(
        "{adjective}_{noun}_{:04x}",
        (random >> 16) & 0xffff
    ))
}

/// Random bits, or the time where the kernel has none to give: it is a name, not a secret.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    match filled {
        Ok(length) if length == bytes.len() => u64::from_ne_bytes(bytes),
        _ => vc_types::Timeline::now().wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_words_is_a_name() {
        for bits in 0..=0xffff {
            name_from(bits).unwrap();
        }
    }

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<_> =
            (0..100).map(|_| random_name().unwrap()).collect();
        assert!(names.len() > 90);
    }
}
