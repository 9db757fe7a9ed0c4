// SPDX-License-Identifier: GPL-2.0-or-later

//! How things are written for humans: names, identities, times, sizes.

use reelfs_format::record::{Identity, Lsn};

/// A name or path, in quotes, with everything escaped that is not plain printable UTF-8. Names from media could
/// otherwise play tricks with the terminal.
pub fn name(bytes: &[u8]) -> String {
    let mut shown = String::from("'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => shown.extend(['\\', c]),
                c if c.is_control() || is_invisible(c) => shown.extend(c.escape_unicode()),
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown.push('\'');
    shown
}

/// Characters that change the direction of text or have no width.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// An identity: type of the handle, colon, its bytes.
pub fn identity(identity: &Identity) -> String {
    if identity.is_none() {
        return "none".into();
    }
    format!("{:x}:{}", identity.kind, hex::encode(identity.handle().unwrap_or(&identity.bytes)))
}

/// A span of time, roughly.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(1.0).round() as u64;
    match (seconds / 3600, seconds / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {} min", minutes % 60),
    }
}

/// A number of bytes.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A position in the log.
pub fn lsn(lsn: Lsn) -> String {
    format!("{lsn:#x}")
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Nanoseconds since 1970-01-01 UTC as a date and time with six decimals.
pub fn time(nanoseconds: i64) -> String {
    let (seconds, fraction) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The inverse of `days_from_date`.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", fraction / 1000)
}

/// A time as [`time`] writes it, shorter forms included: `2026-11-20`, `2026-11-20 08:30`, `2026-11-20T08:30:05.5Z`; or
/// `@` and seconds since 1970-01-01. All UTC. In nanoseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000);
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => (date, clock),
        None => (text, "00:00"),
    };
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next().unwrap_or(Some(0))?);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second)
        && (1970..=2262).contains(&year);
    if !in_range || fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = days_from_date(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        let cases = [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-29T23:59:59.999999Z", 951_868_799_999_999_000),
            ("2026-11-20T08:35:46.000000Z", 1_795_163_746_000_000_000),
            ("2100-03-01T00:00:00.000000Z", 4_107_542_400_000_000_000),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(time(nanoseconds), text);
            assert_eq!(parse_time(text), Some(nanoseconds));
        }
        assert_eq!(parse_time("2026-11-20"), Some(1_795_132_800_000_000_000));
        assert_eq!(parse_time("2026-11-20 08:35"), Some(1_795_163_700_000_000_000));
        assert_eq!(parse_time("@17"), Some(17_000_000_000));
        for bad in ["", "x", "2026", "2026-13-01", "2026-11-20T25:00", "2026-11-20T08", "2026-11-20T08:30.x"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_cannot_play_tricks() {
        assert_eq!(name(b"plain"), "'plain'");
        assert_eq!(name(b"a'b\\"), r"'a\'b\\'");
        assert_eq!(name(b"\x1b[2J\xff"), r"'\u{1b}[2J\xff'");
        assert_eq!(name("\u{202e}gpj".as_bytes()), r"'\u{202e}gpj'");
    }
}
