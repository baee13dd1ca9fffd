//! Sizes of memory as runc takes them: more than those of our own flags.

/// What stands for no limit.
const UNLIMITED: i64 = -1;

/// Digits after the point that count. With more, the unit of a petabyte makes less than a byte.
const FRACTION_DIGITS_MAX: usize = 18;

/// A number of bytes: whole or with a fraction, with an optional binary unit of either case (`k`,
/// `m`, `g`, `t`, `p`, each with an optional `i` and `b`) after at most one space. `-1` is no
/// limit.
pub(super) fn parse(text: &str) -> Result<i64, &'static str> {
    const FORM: &str = "a size is a number of bytes, or one with a unit such as 512m or 1.5g";
    const TOO_LARGE: &str = "it is larger than 63 bits hold";
    if text == "-1" {
        return Ok(UNLIMITED);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if is_number(fraction) => (whole, fraction),
        Some(_) => return Err(FORM),
        None => (number, ""),
    };
    if !is_number(whole) {
        return Err(FORM);
    }
    let shift = shift(unit.strip_prefix(' ').unwrap_or(unit)).ok_or(FORM)?;
    let whole: u64 = whole.parse().map_err(|_| TOO_LARGE)?;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let digits = u32::try_from(fraction.len()).unwrap_or_default();
    let part: u128 = fraction.parse().unwrap_or_default();
    // 64 bits and the 50 of the largest unit; the part is less than one of the unit.
    let bytes = (u128::from(whole) << shift) + ((part << shift) / 10u128.pow(digits));
    i64::try_from(bytes).map_err(|_| TOO_LARGE)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    Some(match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_other_runtimes() {
        // From the tests of the library that runc uses.
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32Kb", 32 << 10),
            ("32Kib", 32 << 10),
            ("32KIB", 32 << 10),
            ("32Mb", 32 << 20),
            ("32Gb", 32 << 30),
            ("32Tb", 32 << 40),
            ("32Pb", 32 << 50),
            ("32.5kB", 65 << 9),
            ("32.5 kB", 65 << 9),
            ("32.5 B", 32),
            ("0.3 K", 307),
            ("0", 0),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "hello",
            ".3kB",
            "32.",
            " 32",
            "32  kb",
            "-32",
            "32 mx",
            "1.2.3",
            "1e3",
            "1_000",
            "9223372036854775808",
            "9000p",
            "99999999999999999999999k",
            "+1",
            "-1k",
            "１",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_whole_numbers_are_themselves(
            text in "[0-9. kmgtpibKMB-]{0,40}|.{0,40}",
            number in 0..=i64::MAX,
        ) {
            if let Ok(bytes) = parse(&text) {
                prop_assert!(bytes >= UNLIMITED);
            }
            prop_assert_eq!(parse(&number.to_string()), Ok(number));
        }
    }
}
