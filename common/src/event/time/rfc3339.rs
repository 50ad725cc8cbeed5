//! The form of nearly every event, read in one pass: RFC 3339 with `T`, `t` or a space, with or without a fraction and
//! an offset.

use super::Moment;
use super::calendar::days_in_month;

/// `None` for any other text, also for days and times that do not exist: [`super::variants`] then reports the reason.
#[inline]
pub(super) fn read(text: &[u8]) -> Option<Moment> {
    let (head, rest) = text.split_first_chunk::<19>()?;
    let has_separators = head[4] == b'-'
        && head[7] == b'-'
        && head[13] == b':'
        && head[16] == b':'
        && matches!(head[10], b'T' | b't' | b' ');
    if !has_separators {
        return None;
    }
    let year = i32::try_from(digits(&head[0..4])?).ok()?;
    let (month, day) = (digits(&head[5..7])?, digits(&head[8..10])?);
    let (hour, minute, second) = (digits(&head[11..13])?, digits(&head[14..16])?, digits(&head[17..19])?);
    let exists = (1..=12).contains(&month)
        && day != 0
        && day <= days_in_month(year, month)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !exists {
        return None;
    }
    let (micros, zone) = fraction(rest)?;
    Some(Moment {
        year,
        month,
        day,
        second_of_day: hour * 3600 + minute * 60 + second.min(59),
        micros,
        offset_seconds: offset(zone)?,
    })
}

#[inline]
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u32::from(byte - b'0')),
        _ => None,
    })
}

/// Microseconds, and the bytes after the fraction.
#[inline]
fn fraction(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some(fraction) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let kept = length.min(6);
    let mut micros = digits(&fraction[..kept])?;
    for _ in kept..6 {
        micros *= 10;
    }
    Some((micros, &fraction[length..]))
}

/// Seconds east of UTC; `Some(None)` if there is no offset.
#[inline]
fn offset(zone: &[u8]) -> Option<Option<i32>> {
    let (sign, hours, minutes) = match zone {
        b"" => return Some(None),
        b"Z" | b"z" => return Some(Some(0)),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            (sign, digits(&[*h1, *h2])?, digits(&[*m1, *m2])?)
        }
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    Some(Some(if *sign == b'-' { -seconds } else { seconds }))
}
