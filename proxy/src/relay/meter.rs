//! The usage meter: reads the events of a leg as they pass, without copying or delaying them.
//!
//! It parses an event's JSON only where the event can hold usage or limits; text deltas are counted, not read.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use codex_lb_shared::clock;
use codex_lb_shared::domain::usage::{MeteredUsage, TokenUsage};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::events::{Event, EventSplitter};
use crate::usage_report::{self, UsageReport};

/// Longest failure event that is kept; a longer one says nothing about its account.
const FAILURE_BYTES_MAX: usize = 256 * 1024;

/// How a stream ended, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// `response.completed`.
    Completed,
    /// `response.incomplete`: an answer that stopped at a bound.
    Incomplete,
    /// `response.failed` or `error`.
    Failed,
}

/// Watches one leg's stream.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    splitter: EventSplitter,
    is_lost: bool,
    deltas: u64,
    end: End,
    first_token_at: Option<Instant>,
    bytes: u64,
    usage_report: Option<UsageReport>,
}

/// What the terminal event told.
#[derive(Debug, Default)]
struct End {
    terminal: Option<Terminal>,
    usage: Option<TokenUsage>,
    response_id: Option<String>,
    failure: Option<Bytes>,
}

/// An end is an end whatever its usage looks like, so that is read apart.
#[derive(Deserialize)]
struct TerminalEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

/// Each member is read apart, too.
#[derive(Deserialize)]
struct TerminalResponse<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UsageObject {
    input_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl Meter {
    /// Looks at the next bytes of the stream.
    pub(crate) fn read(&mut self, bytes: &[u8], now: Instant) {
        self.bytes += bytes.len() as u64;
        if self.is_lost {
            return;
        }
        let Self { splitter, deltas, first_token_at, usage_report, end, .. } = self;
        let read = splitter.push(bytes, |event| match event.kind() {
            kind if kind.ends_with(".delta") => {
                *deltas += 1;
                first_token_at.get_or_insert(now);
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.done" | "error" => {
                end.read(event);
            }
            "codex.rate_limits" => *usage_report = usage_report::in_event(&event.data(), clock::now()),
            _ => {}
        });
        // The relay ends such a stream; what was counted until here still stands.
        self.is_lost = read.is_err();
    }

    /// What the stream told about its account's limits since the last time this was asked.
    pub(crate) const fn take_usage_report(&mut self) -> Option<UsageReport> {
        self.usage_report.take()
    }

    /// How the stream ended, once it told.
    pub(crate) const fn terminal(&self) -> Option<Terminal> {
        self.end.terminal
    }

    /// The event by which the stream said that it failed, if it did.
    pub(crate) const fn failure(&self) -> Option<&Bytes> {
        self.end.failure.as_ref()
    }

    /// The id of the response that ended, if it has one.
    pub(crate) fn response_id(&self) -> Option<&str> {
        self.end.response_id.as_deref()
    }

    /// When the first token passed.
    pub(crate) const fn first_token_at(&self) -> Option<Instant> {
        self.first_token_at
    }

    /// What was used so far. `input_tokens_estimate` stands in for what upstream did not tell.
    pub(crate) fn usage(&self, input_tokens_estimate: u64) -> MeteredUsage {
        match self.end.usage {
            Some(usage) => MeteredUsage::Exact(usage),
            // A failure before any token, told by upstream itself, used nothing that we know of.
            None if self.end.terminal == Some(Terminal::Failed) && self.deltas == 0 => MeteredUsage::None,
            None if self.bytes == 0 => MeteredUsage::None,
            // Each delta is a token at least; upstream sends them one by one.
            None => MeteredUsage::AtLeast(TokenUsage {
                input: input_tokens_estimate,
                cached_input: 0,
                output: self.deltas,
                reasoning: 0,
            }),
        }
    }
}

impl End {
    fn read(&mut self, event: Event<'_>) {
        let data = event.data();
        let Ok(parsed) = serde_json::from_slice::<TerminalEvent<'_>>(&data) else { return };
        let terminal = match parsed.kind.as_ref() {
            "response.completed" | "response.done" => Terminal::Completed,
            "response.incomplete" => Terminal::Incomplete,
            "response.failed" | "error" => Terminal::Failed,
            _ => return,
        };
        self.terminal = Some(terminal);
        if terminal == Terminal::Failed && data.len() <= FAILURE_BYTES_MAX {
            self.failure = Some(Bytes::copy_from_slice(&data));
        }
        let response = parsed.response.and_then(|raw| serde_json::from_str::<TerminalResponse<'_>>(raw.get()).ok());
        let Some(TerminalResponse { id, usage }) = response else { return };
        if let Some(told) = usage.and_then(|raw| serde_json::from_str::<UsageObject>(raw.get()).ok()?.tokens()) {
            self.usage = Some(told);
        }
        self.response_id = id.and_then(|raw| serde_json::from_str(raw.get()).ok());
    }
}

impl UsageObject {
    /// The counts, if upstream told any. What it left out of a told count is zero.
    fn tokens(self) -> Option<TokenUsage> {
        if self.input_tokens.is_none() && self.output_tokens.is_none() {
            return None;
        }
        let (input, output) = (self.input_tokens.unwrap_or(0), self.output_tokens.unwrap_or(0));
        let cached = self.input_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
        let reasoning = self.output_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0);
        Some(TokenUsage { input, cached_input: cached.min(input), output, reasoning: reasoning.min(output) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(text: &str) -> Meter {
        let mut meter = Meter::default();
        for piece in text.as_bytes().chunks(7) {
            meter.read(piece, Instant::now());
        }
        meter
    }

    const DELTA: &str =
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";

    #[test]
    fn the_terminal_event_tells_the_usage() {
        let end = r#"{"type":"response.completed","response":{"id":"r","output":[],"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":17}}}"#;
        for framed in [format!("event: response.completed\ndata: {end}\n\n"), format!("data: {end}\r\n\r\n")] {
            let meter = meter(&format!("{DELTA}{DELTA}{framed}"));
            assert_eq!(meter.terminal(), Some(Terminal::Completed));
            let usage = TokenUsage { input: 10, cached_input: 4, output: 7, reasoning: 3 };
            assert_eq!(meter.usage(99), MeteredUsage::Exact(usage));
            assert!(meter.first_token_at().is_some());
        }
    }

    #[test]
    fn an_end_with_odd_usage_is_an_end_all_the_same() {
        let cases = [
            (
                r#"{"input_tokens":1000,"input_tokens_details":{"cached_tokens":null},"output_tokens":100}"#,
                Some((1000, 100)),
            ),
            (r#"{"input_tokens":7,"output_tokens":null,"output_tokens_details":null}"#, Some((7, 0))),
            (r#"{"input_tokens":"many"}"#, None),
            ("null", None),
            ("{}", None),
        ];
        for (usage, expected) in cases {
            let meter = meter(&format!(
                "data: {{\"type\":\"response.completed\",\"response\":{{\"id\":\"r\",\"usage\":{usage}}}}}\n\n"
            ));
            assert_eq!(meter.terminal(), Some(Terminal::Completed), "{usage}");
            assert_eq!(meter.response_id(), Some("r"), "{usage}");
            let told = meter.end.usage.map(|usage| (usage.input, usage.output));
            assert_eq!(told, expected, "{usage}");
        }
    }

    #[test]
    fn a_cut_stream_used_at_least_what_was_seen() {
        let meter = meter(&format!("{DELTA}{DELTA}{DELTA}data: {{\"type\":\"resp"));
        assert_eq!(meter.terminal(), None);
        let seen = TokenUsage { input: 50, output: 3, ..TokenUsage::default() };
        assert_eq!(meter.usage(50), MeteredUsage::AtLeast(seen));
        assert_eq!(Meter::default().usage(50), MeteredUsage::None);
    }

    #[test]
    fn text_that_quotes_a_terminal_event_is_not_one() {
        let quoting = r#"{"type":"response.output_text.delta","delta":"{\"type\":\"response.completed\"}"}"#;
        let meter = meter(&format!("data: {quoting}\n\n"));
        assert_eq!((meter.terminal(), meter.deltas), (None, 1));
    }

    #[test]
    fn an_early_failure_used_nothing() {
        let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#;
        let meter = meter(&format!("event: response.failed\ndata: {failed}\n\n"));
        assert_eq!((meter.terminal(), meter.usage(9)), (Some(Terminal::Failed), MeteredUsage::None));
        assert_eq!((meter.failure().unwrap(), meter.response_id()), (&Bytes::from(failed), None));
    }
}
