//! Time as midge uses it: a monotonic count of milliseconds that is handed down as an argument, and
//! the two ways a date is written (RFC 3339 for machines, the log's own form for people).
//!
//! Nothing below the event loop reads a clock: a worker asks its [`Clock`] once a turn and passes
//! [`Millis`] on, so that tests and the simulator can hand in any time they like. Always holds: a
//! [`Millis`] never goes back and its arithmetic saturates.

#![deny(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since a [`Clock`] was made; monotonic, without relation to the date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds after this one; the end of time if that cannot be counted.
    pub fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is in fact later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The source of [`Millis`]: one is made when the process starts and copied to every worker, so that
/// all of them count from the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that counts from now.
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Milliseconds since the start, rounded down.
    pub fn now(&self) -> Millis {
        let elapsed = self.start.elapsed().as_millis();
        Millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

const SECONDS_A_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the Gregorian calendar, counted back.
const EPOCH_DAYS: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats: 400 × 365 + 100 − 4 + 1.
const ERA_DAYS: i64 = 146_097;

/// A date and time of day in the Gregorian calendar, in whatever zone it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// Year, astronomical (0 is 1 BC).
    pub year: i64,
    /// Month from 1.
    pub month: u8,
    /// Day of the month from 1.
    pub day: u8,
    /// Hour from 0.
    pub hour: u8,
    /// Minute from 0.
    pub minute: u8,
    /// Second from 0; leap seconds do not exist in Unix time.
    pub second: u8,
    /// Nanosecond within the second.
    pub nanos: u32,
}

impl Civil {
    /// `at` in UTC.
    pub fn utc(at: SystemTime) -> Civil {
        let (seconds, nanos) = unix(at);
        Civil::from_unix(seconds, nanos)
    }

    /// `at` in the time zone of this process (`TZ`, or the system's); UTC where that is unknown.
    pub fn local(at: SystemTime) -> Civil {
        let (seconds, nanos) = unix(at);
        Civil::from_unix(seconds.saturating_add(local_offset(seconds)), nanos)
    }

    /// Years are counted from March 1st, so that the leap day is the last day of its year and the
    /// months before it have a regular pattern (153 days for each five).
    fn from_unix(seconds: i64, nanos: u32) -> Civil {
        let of_day = seconds.rem_euclid(SECONDS_A_DAY);
        let days = seconds.div_euclid(SECONDS_A_DAY) + EPOCH_DAYS;
        let era = days.div_euclid(ERA_DAYS);
        let of_era = days.rem_euclid(ERA_DAYS);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12 + 1;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Civil {
            year,
            month: month as u8,
            day: day as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            nanos,
        }
    }
}

/// `at` as RFC 3339 text in UTC, always with nine digits of nanoseconds:
/// `2026-11-21T14:26:07.485357123Z`.
pub fn rfc3339(at: SystemTime) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
    } = Civil::utc(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Seconds (rounded down) and nanoseconds since 1970; negative before.
fn unix(at: SystemTime) -> (i64, u32) {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => (clamp_seconds(after), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (-clamp_seconds(before), 0),
                nanos => (-clamp_seconds(before) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// Far dates stop where the calendar arithmetic above is still far from an overflow.
fn clamp_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs())
        .unwrap_or(i64::MAX)
        .min(i64::MAX / 4)
}

/// Seconds that local time is ahead of UTC at the Unix time `seconds`; 0 where it is not known.
///
/// The standard library has no time zones, and this one number is all that the log needs of them.
// The offset is a `long`, which is narrower than `i64` on 32-bit targets only.
#[allow(unsafe_code, clippy::useless_conversion)]
fn local_offset(seconds: i64) -> i64 {
    // Where `time_t` has 32 bits a date past 2038 wraps: the zone of another year, nothing worse.
    let seconds = seconds as libc::time_t;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the types the function wants; it writes only
    // `parts` and keeps neither. All-zero bytes are a valid `tm` (integers and a null pointer), so
    // reading the result is sound even if nothing was written.
    let parts = unsafe {
        if libc::localtime_r(&seconds, parts.as_mut_ptr()).is_null() {
            return 0;
        }
        parts.assume_init()
    };
    i64::from(parts.tm_gmtoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: u32) -> SystemTime {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            UNIX_EPOCH - whole
        } else {
            UNIX_EPOCH + whole
        };
        base + Duration::from_nanos(u64::from(nanos))
    }

    #[test]
    fn rfc3339_of_known_dates() {
        // Expected texts from `date -u -d @SECONDS +%FT%T`.
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (-1, 5, "1969-12-31T23:59:59.000000005Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (951_868_799, 999_999_999, "2000-02-29T23:59:59.999999999Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000000Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00.000000000Z"),
            (1_704_067_199, 0, "2023-12-31T23:59:59.000000000Z"),
            (1_795_271_167, 485_357_123, "2026-11-21T14:26:07.485357123Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (-2_203_977_600, 0, "1900-02-28T00:00:00.000000000Z"),
            (-2_203_891_200, 0, "1900-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(at(seconds, nanos)), expected, "{seconds}");
        }
    }

    /// Walks every day of 800 years beside a calendar that only knows month lengths.
    #[test]
    fn civil_days_follow_the_calendar() {
        let (mut year, mut month, mut day) = (1601_i64, 1_u8, 1_u8);
        let mut seconds = -11_644_473_600_i64;
        while year < 2401 {
            let civil = Civil::from_unix(seconds + 86_399, 0);
            assert_eq!((civil.year, civil.month, civil.day), (year, month, day));
            assert_eq!((civil.hour, civil.minute, civil.second), (23, 59, 59));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == days => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
            seconds += SECONDS_A_DAY;
        }
    }

    #[test]
    fn extreme_dates_do_not_panic() {
        for far in [
            UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX as u64)),
            UNIX_EPOCH.checked_sub(Duration::from_secs(i64::MAX as u64)),
        ]
        .into_iter()
        .flatten()
        {
            rfc3339(far);
            Civil::local(far);
        }
    }

    /// The zone of the machine is unknown here, but any zone is a whole number of minutes within 15
    /// hours of UTC for dates of this century, and the same each time.
    #[test]
    fn local_time_is_utc_plus_a_plausible_offset() {
        let offset = local_offset(1_795_271_167);
        assert!(
            offset.abs() <= 15 * 3600 && offset % 60 == 0,
            "offset {offset}"
        );
        assert_eq!(offset, local_offset(1_795_271_167));
        let moment = at(1_795_271_167, 7);
        assert_eq!(
            Civil::local(moment),
            Civil::from_unix(1_795_271_167 + offset, 7)
        );
    }

    #[test]
    fn millis_saturate_and_clock_does_not_go_back() {
        assert_eq!(Millis(5).plus(7), Millis(12));
        assert_eq!(Millis(u64::MAX).plus(1), Millis(u64::MAX));
        assert_eq!(Millis(12).since(Millis(5)), 7);
        assert_eq!(Millis(5).since(Millis(12)), 0);
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
