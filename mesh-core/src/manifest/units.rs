//! Sizes and durations as people write them.

use std::fmt;

/// A text that is a number and a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units {
    /// What the smallest unit is called, and how many of it each unit is.
    units: &'static [(&'static str, u64)],
    example: &'static str,
}

pub(super) const SIZE: Units = Units {
    units: &[
        ("B", 1),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
    example: "write a size such as \"100MiB\"",
};

pub(super) const DURATION: Units = Units {
    units: &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)],
    example: "write a duration such as \"250ms\", \"2s\" or \"5m\"",
};

impl Units {
    /// The value in the smallest unit; a fraction of it is cut off.
    pub fn parse(self, text: &str) -> Result<u64, impl fmt::Display> {
        let wrong = || {
            let given: String = text.chars().take(80).collect();
            format!("{given:?} is not valid: {}", self.example)
        };
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, unit) = trimmed.split_at(end);
        let unit = unit.trim_start();
        let (_, factor) = self
            .units
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let digits = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
        let fraction: u128 = fraction.parse().map_err(|_| wrong())?;
        let parts = 10_u128.checked_pow(digits).ok_or_else(wrong)?;
        let rest = fraction
            .checked_mul(u128::from(*factor))
            .ok_or_else(wrong)?
            / parts;
        whole
            .checked_mul(*factor)
            .and_then(|value| value.checked_add(u64::try_from(rest).ok()?))
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(units: Units, text: &str) -> Option<u64> {
        units.parse(text).ok()
    }

    #[test]
    fn sizes_and_durations_are_a_number_and_a_unit() {
        assert_eq!(value(SIZE, "100MiB"), Some(100 << 20));
        assert_eq!(value(SIZE, "1.5 GiB"), Some(3 << 29));
        assert_eq!(value(SIZE, "2MB"), Some(2_000_000));
        assert_eq!(value(DURATION, "2s"), Some(2_000));
        assert_eq!(value(DURATION, "0.25s"), Some(250));
        assert_eq!(value(DURATION, "5m"), Some(300_000));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1 year",
            "1.s",
            ".5s",
            "1.2.3s",
            "99999999999999999999s",
        ] {
            assert_eq!(value(DURATION, bad), None, "{bad}");
        }
    }
}
