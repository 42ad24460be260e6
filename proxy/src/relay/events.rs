//! Finds the events of an event stream in bytes that may be cut anywhere. Lines end in LF, CRLF or CR.
//!
//! Source: the "Server-sent events" chapter of the HTML standard.

use std::borrow::Cow;

use bytes::{Buf as _, BytesMut};
use memchr::{memchr2, memmem};

/// Largest event that is held while its end is awaited.
pub(crate) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An event that never seems to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventTooLarge;

/// Splits a stream of bytes into events.
#[derive(Debug, Default)]
pub(crate) struct EventSplitter {
    /// The beginning of an event whose end has not come.
    partial: BytesMut,
    /// How far `partial` is known to hold no end.
    scanned: usize,
    /// The last event ended in two bare CRs: an LF that comes now belongs to the second and to no event.
    skips_lf: bool,
}

impl EventSplitter {
    /// Takes the next bytes and calls `on_event` with each event that is now whole, its closing blank line included.
    ///
    /// # Errors
    /// When an event is larger than [`EVENT_BYTES_MAX`].
    pub(crate) fn push(&mut self, bytes: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), EventTooLarge> {
        let skips_lf = self.skips_lf && bytes.first() == Some(&b'\n');
        let bytes = &bytes[usize::from(skips_lf)..];
        self.skips_lf &= bytes.is_empty() && !skips_lf;
        if self.partial.is_empty() {
            let rest = each_event(bytes, 0, &mut on_event);
            self.skips_lf |= rest == bytes.len() && ends_bare(bytes);
            return self.keep(&bytes[rest..]);
        }
        self.partial.extend_from_slice(bytes);
        // In place: an image comes as one event of megabytes, which must not be copied again with each of its pieces.
        let rest = each_event(&self.partial, self.scanned, &mut on_event);
        self.skips_lf = rest == self.partial.len() && ends_bare(&self.partial);
        self.partial.advance(rest);
        if self.partial.is_empty() {
            // What held it is not kept for the small events that follow.
            self.partial = BytesMut::new();
        }
        self.keep(&[])
    }

    /// Whether the bytes so far end where an event ends.
    pub(crate) fn is_between_events(&self) -> bool {
        self.partial.is_empty()
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), EventTooLarge> {
        if self.partial.len() + rest.len() > EVENT_BYTES_MAX {
            return Err(EventTooLarge);
        }
        self.partial.extend_from_slice(rest);
        // The last three bytes may be the beginning of a blank line (CR LF CR LF).
        self.scanned = self.partial.len().saturating_sub(3);
        Ok(())
    }
}

/// Calls `on_event` for each whole event; returns where the rest begins. The first event is known to have no end
/// before `scanned`.
fn each_event(bytes: &[u8], scanned: usize, on_event: &mut impl FnMut(Event<'_>)) -> usize {
    let (mut start, mut from) = (0, scanned);
    while let Some(end) = event_end(bytes, from) {
        on_event(Event { bytes: &bytes[start..end] });
        let skips_lf = ends_bare(&bytes[..end]) && bytes.get(end) == Some(&b'\n');
        start = end + usize::from(skips_lf);
        from = start;
    }
    start
}

/// Whether an event ends here for sure although an LF may follow. Streams with bare CRs end in one, and nothing follows.
fn ends_bare(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\r\r")
}

/// The position behind the first blank line at or after `from`, if it is certain.
fn event_end(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let line_end = from + memchr2(b'\n', b'\r', &bytes[from..])?;
        let next_line = after_line_end(bytes, line_end)?;
        match bytes.get(next_line)? {
            b'\n' => return Some(next_line + 1),
            b'\r' if ends_bare(&bytes[..=next_line]) => return Some(next_line + 1),
            // A CR may be the first half of CRLF; only the next byte tells.
            b'\r' => return after_line_end(bytes, next_line),
            _ => from = next_line,
        }
    }
}

/// The position behind the line end at `at`; `None` while a CR might still become CRLF.
fn after_line_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] == b'\n' {
        return Some(at + 1);
    }
    bytes.get(at + 1).map(|next| if *next == b'\n' { at + 2 } else { at + 1 })
}

/// One event, as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a> {
    bytes: &'a [u8],
}

impl<'a> Event<'a> {
    /// The event with its framing.
    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The data: its `data:` lines, joined. Empty for comments.
    pub(crate) fn data(&self) -> Cow<'a, [u8]> {
        let mut lines = self.field_lines(b"data");
        let Some(first) = lines.next() else { return Cow::Borrowed(&[]) };
        let Some(second) = lines.next() else { return Cow::Borrowed(first) };
        let mut joined = first.to_vec();
        for line in std::iter::once(second).chain(lines) {
            joined.push(b'\n');
            joined.extend_from_slice(line);
        }
        Cow::Owned(joined)
    }

    /// The event's type: its `event:` line, else the `type` of its data as far as a glance tells.
    pub(crate) fn kind(&self) -> &'a str {
        if let Some(named) = self.field_lines(b"event").next() {
            return std::str::from_utf8(named).unwrap_or_default();
        }
        // Upstream writes `type` first. A type inside a nested object could be met first by a glance, so whoever acts
        // on a rare type parses the data as well.
        let key = br#""type":""#;
        let Some(at) = memmem::find(self.bytes, key) else { return "" };
        let value = &self.bytes[at + key.len()..];
        let end = memchr::memchr(b'"', value).unwrap_or(0);
        std::str::from_utf8(&value[..end]).unwrap_or_default()
    }

    fn field_lines(&self, name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(move |line| {
            let value = line.strip_prefix(name)?.strip_prefix(b":")?;
            Some(value.strip_prefix(b" ").unwrap_or(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut splitter = EventSplitter::default();
        let mut events = Vec::new();
        for piece in pieces {
            splitter.push(piece, |event| events.push(event.as_bytes().to_vec())).unwrap();
        }
        (events, splitter.is_between_events())
    }

    #[test]
    fn every_line_ending_ends_events() {
        for (text, expected) in [
            (&b"data: a\n\ndata: b\n\n"[..], 2),
            (b"data: a\r\n\r\ndata: b\r\n\r\n", 2),
            (b"data: a\r\rdata: b\r\rx", 2),
            (b"data: a\r\rdata: b\r\r", 2),
            (b"data: a\r\r\ndata: b\r\r\n", 2),
            (b": comment\n\n", 1),
            (b"data: a\n", 0),
            (b"data: a", 0),
        ] {
            assert_eq!(split(&[text]).0.len(), expected, "{:?}", String::from_utf8_lossy(text));
        }
        assert!(split(&[b"data: a\n\n"]).1);
        assert_eq!(split(&[b"data: a\r", b"\r", b"\n", b"\ndata: b\r\r"]), {
            let events = [&b"data: a\r\r"[..], b"\ndata: b\r\r"].map(<[u8]>::to_vec);
            (events.to_vec(), true)
        });
        assert!(!split(&[b"data: a\n\nd"]).1);
    }

    #[test]
    fn fields_are_read() {
        let text = b"event: response.created\ndata: {\"type\":\"x\"}\n\n";
        let mut splitter = EventSplitter::default();
        let mut seen = 0;
        splitter
            .push(text, |event| {
                seen += 1;
                assert_eq!(event.kind(), "response.created");
                assert_eq!(event.data().as_ref(), b"{\"type\":\"x\"}");
            })
            .unwrap();
        splitter
            .push(b"data:{\"type\":\"a.b\",\ndata: \"x\":1}\r\n\r\n", |event| {
                seen += 1;
                assert_eq!(event.kind(), "a.b");
                assert_eq!(event.data().as_ref(), b"{\"type\":\"a.b\",\n\"x\":1}");
            })
            .unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut splitter = EventSplitter::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2];
        assert_eq!(splitter.push(&piece, |_| {}), Ok(()));
        assert_eq!(splitter.push(&piece, |_| {}), Ok(()));
        assert_eq!(splitter.push(b"y", |_| {}), Err(EventTooLarge));
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_events(
            parts in prop::collection::vec(prop::sample::select(vec!["data: a", "event: b", ":c", "\n", "\r\n", "\r", "\n\n", "x"]), 0..40),
            cuts in prop::collection::vec(0_usize..200, 0..10),
        ) {
            // A byte behind the last line end, so that no CR is left waiting for its LF.
            let text = parts.concat() + "z";
            let whole = split(&[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&split(&pieces), &whole);
            prop_assert_eq!(split(&pieces).0.concat().len() <= text.len(), true);
        }
    }
}
