//! When upstream says to come back: `resets_at`, `resets_in_seconds`, `Retry-After`, or words in a message.

use std::time::Duration;

/// The longest wait we believe; anything longer is a mistake of the sender (a plan's month is 31 days).
const WAIT_MAX: Duration = Duration::from_secs(32 * 24 * 3600);

/// Reads a `Retry-After` header in seconds. Dates are not used by this upstream and count as absent.
pub fn retry_after(header: &str) -> Option<Duration> {
    bounded(header.trim().parse::<f64>().ok()?)
}

/// Reads a span out of a sentence such as "Please try again in 1h 2m 3.5s." or "try again in 20ms".
pub fn try_again_in(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let (_, after) = lower.split_once("try again in")?;
    let mut seconds = 0.0;
    let mut rest = after.trim_start();
    let mut found = false;
    while let Some((amount, unit_seconds, tail)) = leading_span(rest) {
        seconds += amount * unit_seconds;
        found = true;
        rest = tail.trim_start();
    }
    if found { bounded(seconds) } else { None }
}

/// Splits "1.5s rest" into its amount, its unit in seconds, and the rest.
fn leading_span(text: &str) -> Option<(f64, f64, &str)> {
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
    Some((amount, unit_seconds, &unit_and_rest[letters..]))
}

fn bounded(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_sentences_are_read() {
        let cases = [
            ("Rate limit reached. Please try again in 1.3s.", Some(1_300)),
            ("Please try again in 1h 2m 3.5s.", Some(3_723_500)),
            ("try again in 20ms", Some(20)),
            ("Try again in 6m0s. Visit", Some(360_000)),
            ("try again in 28 seconds", Some(28_000)),
            ("try again in 2 days 3 hours", Some(183_600_000)),
            ("try again in 5.", None),
            ("try again in a while", None),
            ("try again later", None),
            ("try again in 99999999999999999999d", Some(32 * 24 * 3_600_000)),
        ];
        for (message, expected) in cases {
            assert_eq!(try_again_in(message), expected.map(Duration::from_millis), "{message}");
        }
    }

    #[test]
    fn retry_after_takes_seconds_only() {
        for (header, expected) in
            [("30", Some(30_000)), (" 1.5 ", Some(1_500)), ("-1", None), ("NaN", None), ("Wed, 21 Oct", None)]
        {
            assert_eq!(retry_after(header), expected.map(Duration::from_millis), "{header}");
        }
    }
}
