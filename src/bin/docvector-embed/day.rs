//! A day of the calendar, as entries of a cache have it: [`Day`].

use std::{fmt, str::FromStr, time::UNIX_EPOCH};

/// Days since 1970-01-01, UTC. It displays as `2026-11-28`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) u32);

/// The days of 400 years, after which the calendar repeats, and of the parts that they consist of.
const DAYS_OF_400_YEARS: i64 = 146_097;
/// The days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

impl Day {
    pub(crate) fn today() -> Self {
        Self(u32::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 86_400).unwrap_or(u32::MAX))
    }

    /// Returns year, month and day. Years begin in March here, so that the leap day is their last.
    fn civil(self) -> (i64, i64, i64) {
        let days = i64::from(self.0) + DAYS_BEFORE_1970;
        let (era, of_era) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        (400 * era + year, month, day)
    }

    fn of_civil(year: i64, month: i64, day: i64) -> Option<Self> {
        let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let (era, of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
        let of_year = (153 * march_month + 2) / 5 + day - 1;
        let days = era * DAYS_OF_400_YEARS + 365 * of_era + of_era / 4 - of_era / 100 + of_year - DAYS_BEFORE_1970;
        let found = Self(u32::try_from(days).ok()?);
        // A day that the month does not have would be one of the next.
        (found.civil() == (year, month, day)).then_some(found)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a day must be written as 2026-11-28, and not before 1970".to_owned();
        let mut parts = text.splitn(3, '-').map(|part| {
            let is_number = !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse::<i64>().ok() } else { None }
        });
        let mut next = || parts.next().flatten();
        let (year, month, day) = (next(), next(), next());
        year.zip(month).zip(day).and_then(|((year, month), day)| Self::of_civil(year, month, day)).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_shown() {
        for (number, shown) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_785, "2026-11-28"),
        ] {
            assert_eq!(Day(number).to_string(), shown);
            assert_eq!(shown.parse(), Ok(Day(number)));
        }
        for wrong in ["", "2026", "2026-02-29", "2026-13-01", "2026-00-10", "1969-12-31", "2026-1a-01", "+2026-01-01"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
        assert!(Day::today() > Day(20_000));
    }

    #[test]
    fn every_day_comes_back() {
        for number in (0..200_000).step_by(7) {
            assert_eq!(Day(number).to_string().parse(), Ok(Day(number)));
        }
    }
}
