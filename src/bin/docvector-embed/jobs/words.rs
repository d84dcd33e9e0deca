//! Puts moments and durations into words.

use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;
/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_BEFORE_1970: u64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const DAYS_OF_400_YEARS: u64 = 146_097;

/// Returns a moment in UTC, such as `2026-11-28T14:52:09Z`.
pub(crate) fn timestamp(moment: SystemTime) -> String {
    let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Returns a moment in UTC for people, such as `2026-11-28 14:52`.
pub(crate) fn moment(moment: SystemTime) -> String {
    timestamp(moment).replacen('T', " ", 1).chars().take("2026-11-28 14:52".len()).collect()
}

/// Returns the date of a day, counted from 1 January 1970. Years are taken to begin in March, so that a leap day is the
/// last day of its year.
const fn date(day: u64) -> (u64, u64, u64) {
    let day = day + DAYS_BEFORE_1970;
    let (cycle, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next_year, month, day)
}

/// Returns a duration in its two largest units, such as `3 h 20 min`.
pub(crate) fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", DAY), ("h", 3600), ("min", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(units.len() - 1);
    let (unit, size) = units[first];
    let whole = format!("{} {unit}", seconds / size);
    match units.get(first + 1) {
        Some((unit, smaller)) if seconds % size / smaller > 0 => format!("{whole} {} {unit}", seconds % size / smaller),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_in_utc() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_796_050_329, "2026-11-30T14:52:09Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), shown);
        }
        assert_eq!(moment(SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_050_329)), "2026-11-30 14:52");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (90, "1 min 30 s"),
            (3600, "1 h"),
            (3659, "1 h"),
            (12_000, "3 h 20 min"),
            (86_399, "23 h 59 min"),
            (180_000, "2 d 2 h"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), shown);
        }
    }
}
