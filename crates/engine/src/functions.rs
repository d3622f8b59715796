//! The scalar functions that cleaning definitions may call beside DataFusion's own. Each
//! takes text and gives NULL for what it cannot read, so that no row can fail a batch.

use std::sync::Arc;

use chrono::{FixedOffset, NaiveDate, NaiveDateTime, TimeDelta};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, TimestampMicrosecondArray},
        datatypes::{DataType, TimeUnit},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};

/// All of them, to be registered with a session.
pub fn all() -> Vec<ScalarUDF> {
    vec![
        udf("parse_integer", DataType::Int64, |texts| {
            Arc::new(texts.map(|t| t.and_then(parse_integer)).collect::<Int64Array>())
        }),
        udf("parse_number", DataType::Float64, |texts| {
            Arc::new(texts.map(|t| t.and_then(parse_number)).collect::<Float64Array>())
        }),
        udf("parse_count", DataType::Int64, |texts| {
            Arc::new(texts.map(|t| t.and_then(parse_count)).collect::<Int64Array>())
        }),
        udf("parse_timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), |texts| {
            let micros = |t| parse_timestamp(t).map(|moment| moment.and_utc().timestamp_micros());
            Arc::new(texts.map(|t| t.and_then(micros)).collect::<TimestampMicrosecondArray>())
        }),
    ]
}

type Texts<'a> = &'a mut dyn Iterator<Item = Option<&'a str>>;

fn udf(name: &str, returns: DataType, parse: fn(Texts<'_>) -> ArrayRef) -> ScalarUDF {
    let on_column = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let column = ColumnarValue::values_to_arrays(arguments)?.swap_remove(0);
        let texts = column.as_string_view();
        debug_assert_eq!(texts.len(), column.len());
        Ok(ColumnarValue::Array(parse(&mut texts.iter())))
    };
    create_udf(name, vec![DataType::Utf8View], returns, Volatility::Immutable, Arc::new(on_column))
}

/// A whole number: blanks around it, a sign, and `.0` behind it are tolerated.
pub fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok()
}

/// A finite decimal number.
pub fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    // `inf`, `nan` and the like are words, not numbers.
    let has_only_number_characters = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|n: &f64| has_only_number_characters && n.is_finite())
}

/// A count as sites show it: `912`, `124k`, `1.2M`, `3 b`. Decimal arithmetic, truncated to
/// whole numbers; anything else, and what is larger than a BIGINT, is NULL.
pub fn parse_count(text: &str) -> Option<i64> {
    let text = text.trim();
    let (digits, zeros) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 3),
        b'm' | b'M' => (&text[..text.len() - 1], 6),
        b'b' | b'B' => (&text[..text.len() - 1], 9),
        _ => (text, 0),
    };
    let digits = if zeros > 0 { digits.trim_end() } else { digits };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let decimals = fraction.bytes().map(|b| i64::from(b - b'0')).chain(std::iter::repeat(0)).take(zeros);
    let mut count: i64 = whole.parse().ok()?;
    for decimal in decimals {
        count = count.checked_mul(10)?.checked_add(decimal)?;
    }
    Some(count)
}

/// A moment without a zone, to the second. Reads `2020-08-28T03:52:47`, a blank instead of
/// the `T`, `2020:08:28 03:52:47`, `20200828035247` and `08/28/2020, 03:52:47`; fractions of
/// a second are cut off; an offset (`Z`, `+0200`, `+02:00`) is applied, giving UTC.
pub fn parse_timestamp(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u32> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|b| wanted.contains(b));
    let (year, month, day, time_at) = if bytes.len() == 14 && number(0, 4).is_some() && number(4, 8).is_some() {
        let date = NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(4, 6)?, number(6, 8)?)?;
        return date.and_hms_opt(number(8, 10)?, number(10, 12)?, number(12, 14)?);
    } else if is(2, b"/") && is(5, b"/") && text.get(10..12) == Some(", ") {
        (number(6, 10)?, number(0, 2)?, number(3, 5)?, 12)
    } else if is(4, b"-:") && bytes.get(4) == bytes.get(7) && is(10, b"T t") {
        (number(0, 4)?, number(5, 7)?, number(8, 10)?, 11)
    } else {
        return None;
    };
    if !is(time_at + 2, b":") || !is(time_at + 5, b":") {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(year as i32, month, day)?;
    let time_of = |at| date.and_hms_opt(number(at, at + 2)?, number(at + 3, at + 5)?, number(at + 6, at + 8)?);
    let local = time_of(time_at)?;
    let mut rest = text.get(time_at + 8..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let without = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if without.len() == fraction.len() {
            return None;
        }
        rest = without;
    }
    match rest.trim_start() {
        "" | "Z" | "z" => Some(local),
        offset => offset_seconds(offset).and_then(|east| local.checked_sub_signed(TimeDelta::seconds(east))),
    }
}

/// `+0200`, `+02:00` or `+02`, as seconds east of UTC.
fn offset_seconds(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = digits.get(2..4).map_or(Some(0), |m| m.parse().ok())?;
    if minutes > 59 {
        return None;
    }
    FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60)).map(|o| i64::from(o.local_minus_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_people_mean_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("912", Some(912)),
            ("124k", Some(124_000)),
            ("2M", Some(2_000_000)),
            ("1.2k", Some(1_200)),
            ("1.2345k", Some(1_234)),
            ("1.9", Some(1)),
            (" 3 b ", Some(3_000_000_000)),
            ("5K", Some(5_000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("9223372036854775807k", None),
            ("User Info Error", None),
            ("", None),
            ("k", None),
            (".5k", None),
            ("1.k", None),
            ("-5", None),
            ("1e3", None),
            ("1,000", None),
            ("１２", None),
        ] {
            assert_eq!(parse_count(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_datetime_of_the_field_is_read_and_nothing_else() {
        let expected = "2020-08-28T03:52:47";
        for text in [
            "2020-08-28T03:52:47",
            "2020-08-28 03:52:47",
            "2020:08:28 03:52:47",
            "20200828035247",
            "08/28/2020, 03:52:47",
            " 2020-08-28T03:52:47.999999 ",
            "2020-08-28T03:52:47.000+0000",
            "2020-08-28T03:52:47Z",
            "2020-08-28T05:52:47+02:00",
            "2020-08-27 22:22:47-0530",
        ] {
            let moment = parse_timestamp(text).map(|m| m.format("%Y-%m-%dT%H:%M:%S").to_string());
            assert_eq!(moment.as_deref(), Some(expected), "{text:?}");
        }
        for text in [
            "",
            "2020-08-28",
            "2020-02-30T00:00:00",
            "2020-08-28T24:00:00",
            "2020-08:28T03:52:47",
            "28/08/2020, 03:52:47",
            "2020-08-28T03:52:47.",
            "2020-08-28T03:52:47+25:00",
            "2020-08-28T03:52:47 PM",
            "１２３４-08-28T03:52:47",
            "2020-08-28T03:52",
            "üüüüüüüüüüüüüü",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_that_are_not_whole_or_not_finite_are_nothing() {
        for (text, expected) in [
            ("7", Some(7)),
            (" -7 ", Some(-7)),
            ("7.0", Some(7)),
            ("7.5", None),
            ("7.", None),
            ("1e3", None),
            ("x", None),
        ] {
            assert_eq!(parse_integer(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("-88.8298", Some(-88.8298)),
            ("1e3", Some(1000.0)),
            ("1e400", None),
            ("NaN", None),
            ("inf", None),
            ("", None),
        ] {
            assert_eq!(parse_number(text), expected, "{text:?}");
        }
    }
}
