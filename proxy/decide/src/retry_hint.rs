//! When upstream says to come back: `resets_at`, `resets_in_seconds`, `Retry-After`, or words in a message.

use std::ops::RangeInclusive;
use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
use jiff::fmt::rfc2822;

/// The waits we believe: what our clock can tell from nothing, up to a plan's month of 31 days.
const CREDIBLE_WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(32 * 24 * 3600);
/// Days, hours, minutes, seconds and milliseconds: a sentence names no more.
const SPANS_MAX: usize = 5;

/// Whether a wait can be meant: longer than nothing, and no longer than any limit lasts.
///
/// One that is not is left aside as if upstream had said nothing. Cutting it to the longest instead would make one odd
/// reply keep an account out for a month; asking again after the default costs one refused request at a time.
pub fn is_credible(wait: Duration) -> bool {
    CREDIBLE_WAITS.contains(&wait)
}

/// Reads a `Retry-After` header: seconds, or the date of HTTP.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    match header.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let date = rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
            Some(Timestamp::from_unix_ms(date.as_millisecond()).since(now))
        }
    }
}

/// Reads a span out of a sentence such as "Please try again in 1h 2m 3.5s." or "try again in 20ms".
pub fn try_again_in(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let (_, after) = lower.split_once("try again in")?;
    let mut rest = after.trim_start();
    let mut wait_seconds = None;
    for _ in 0..SPANS_MAX {
        let Some(span) = LeadingSpan::split(rest) else { break };
        *wait_seconds.get_or_insert(0.0) += span.seconds;
        rest = span.rest.trim_start();
    }
    Duration::try_from_secs_f64(wait_seconds?).ok()
}

/// A text that begins with a span such as "1.5s".
struct LeadingSpan<'a> {
    seconds: f64,
    rest: &'a str,
}

impl<'a> LeadingSpan<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        // A full stop at the end of the sentence is no part of the number.
        let amount: f64 = text[..digits].trim_end_matches('.').parse().ok()?;
        let unit_and_rest = text[digits..].trim_start();
        let letters = unit_and_rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit_and_rest.len());
        let unit_seconds = match &unit_and_rest[..letters] {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        Some(Self { seconds: amount * unit_seconds, rest: &unit_and_rest[letters..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    #[test]
    fn spans_in_sentences_are_read() {
        let cases = [
            ("Rate limit reached. Please try again in 1.3s.", Some(1_300)),
            ("Please try again in 1h 2m 3.5s.", Some(3_723_500)),
            ("try again in 20ms", Some(20)),
            ("Try again in 6m0s. Visit", Some(360_000)),
            ("TRY AGAIN IN 28 SECONDS", Some(28_000)),
            ("try again in 2 days 3 hours", Some(183_600_000)),
            ("try again in 1d 1h 1m 1s 1ms", Some(90_061_001)),
            ("try again in 1s 1s 1s 1s 1s 1s", Some(5_000)),
            ("try again in 5 minutes and 3 seconds", Some(300_000)),
            ("try again in 0s", Some(0)),
            ("try again in 5.", None),
            ("try again in 5 parsecs", None),
            ("try again in 1.2.3s", None),
            ("try again in -3s", None),
            ("try again in a while", None),
            ("try again later", None),
            ("in 3s", None),
            ("try again in 99999999999999999999d", None),
        ];
        for (message, expected) in cases {
            assert_eq!(try_again_in(message), expected.map(Duration::from_millis), "{message}");
        }
    }

    #[test]
    fn every_unit_is_known_by_its_names() {
        let units: [(&[&str], u64); 5] = [
            (&["ms", "millisecond", "milliseconds"], 1),
            (&["s", "sec", "secs", "second", "seconds"], 1_000),
            (&["m", "min", "mins", "minute", "minutes"], 60_000),
            (&["h", "hr", "hrs", "hour", "hours"], 3_600_000),
            (&["d", "day", "days"], 86_400_000),
        ];
        for (names, unit_ms) in units {
            for name in names {
                for message in [format!("try again in 2{name}."), format!("try again in 2 {name}")] {
                    assert_eq!(try_again_in(&message), Some(Duration::from_millis(2 * unit_ms)), "{message}");
                }
            }
        }
    }

    #[test]
    fn retry_after_takes_seconds_and_dates() {
        let cases = [
            ("30", Some(30_000)),
            (" 1.5 ", Some(1_500)),
            ("0", Some(0)),
            ("Tue, 14 Nov 2023 22:13:21 GMT", Some(1_000)),
            ("Wed, 15 Nov 2023 22:13:20 GMT", Some(86_400_000)),
            ("Tue, 14 Nov 2023 22:13:19 GMT", Some(0)),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
            ("Wed, 21 Oct", None),
            ("soon", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(retry_after(header, NOW), expected.map(Duration::from_millis), "{header}");
        }
    }

    #[test]
    fn a_wait_of_nothing_or_of_more_than_a_month_is_not_believed() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let ms = Duration::from_millis(1);
        let cases = [
            (Duration::ZERO, false),
            (Duration::from_micros(999), false),
            (ms, true),
            (days(31), true),
            (days(32), true),
            (days(32) + ms, false),
        ];
        for (wait, expected) in cases {
            assert_eq!(is_credible(wait), expected, "{wait:?}");
        }
    }
}
