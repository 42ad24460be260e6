//! Counts the events of a stream while it arrives, whatever the pieces it arrives in, and says whether it was whole.
//!
//! It looks at the `event:` lines alone: reading the JSON would cost the load generator more than the gateway's work.

use anyhow::{bail, ensure};

/// Events around the deltas of an answer: created, in progress, item and part added; text, part and item done, completed.
pub(crate) const EVENTS_AROUND_DELTAS: u64 = 8;
/// As much of a line as is looked at.
const LINE_BYTES_MAX: usize = 64;

/// What an event means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Delta,
    Completed,
    Other,
}

/// A stream, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct EventCounter {
    /// The beginning of a line that is not over yet.
    line: Vec<u8>,
    /// What the event that is not over yet calls itself.
    kind: Option<Kind>,
    deltas: u64,
    others: u64,
    is_completed: bool,
    follows_end: bool,
}

impl EventCounter {
    /// Takes the next piece and returns how many deltas were completed by it.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> u64 {
        let before = self.deltas;
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            if self.line.is_empty() {
                self.end_line(&piece[begin..end]);
            } else {
                self.keep(&piece[begin..end]);
                let line = std::mem::take(&mut self.line);
                self.end_line(&line);
            }
            begin = end + 1;
        }
        self.keep(&piece[begin..]);
        self.deltas - before
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.deltas + self.others
    }

    /// Deltas so far.
    pub(crate) fn deltas(&self) -> u64 {
        self.deltas
    }

    /// The number of events of a stream that has ended.
    ///
    /// # Errors
    /// When it is not exactly an answer of so many deltas.
    pub(crate) fn finish(&self, deltas: u64) -> anyhow::Result<u64> {
        ensure!(self.is_completed, "the stream ended after {} events without response.completed", self.events());
        if self.follows_end || !self.line.is_empty() || self.kind.is_some() {
            bail!("something follows response.completed");
        }
        let expected = deltas + EVENTS_AROUND_DELTAS;
        ensure!(
            (self.deltas, self.events()) == (deltas, expected),
            "{} events with {} deltas came instead of {expected} with {deltas}",
            self.events(),
            self.deltas
        );
        Ok(expected)
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self, line: &[u8]) {
        if line.is_empty() {
            match self.kind.take() {
                Some(kind) => self.count(kind),
                // A comment's end.
                None => return,
            }
        }
        if let Some(name) = line.strip_prefix(b"event: ") {
            self.kind = Some(match name {
                b"response.output_text.delta" => Kind::Delta,
                b"response.completed" => Kind::Completed,
                _ => Kind::Other,
            });
        }
    }

    fn count(&mut self, kind: Kind) {
        self.follows_end |= self.is_completed;
        match kind {
            Kind::Delta => self.deltas += 1,
            Kind::Completed => {
                self.others += 1;
                self.is_completed = true;
            }
            Kind::Other => self.others += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(deltas: usize) -> String {
        let event = |name: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\"}}\n\n");
        let mut text = event("response.created").repeat(4);
        text += &event("response.output_text.delta").repeat(deltas);
        text += ": keep-alive\n\n";
        text += &event("response.output_text.done").repeat(3);
        text + &event("response.completed")
    }

    fn judge(text: &str, piece_bytes: usize) -> Result<u64, String> {
        let mut counter = EventCounter::default();
        let deltas: u64 = text.as_bytes().chunks(piece_bytes).map(|piece| counter.feed(piece)).sum();
        assert_eq!(deltas, counter.deltas());
        counter.finish(5).map_err(|error| error.to_string())
    }

    #[test]
    fn pieces_of_any_size_give_the_same_count() {
        for piece_bytes in 1..200 {
            assert_eq!(judge(&answer(5), piece_bytes), Ok(13), "pieces of {piece_bytes} bytes");
        }
    }

    #[test]
    fn a_wrong_stream_is_noticed() {
        assert!(judge(&answer(4), 50).is_err());
        assert!(judge(&answer(6), 50).is_err());
        assert!(judge(&answer(5).replace("completed", "failed"), 50).is_err());
        assert!(judge(&answer(5)[..400], 50).is_err());
        assert!(judge(answer(5).trim_end(), 50).is_err());
        assert!(judge(&(answer(5) + "event: ping\n"), 50).is_err());
        assert!(judge(&(answer(5) + "x"), 50).is_err());
    }
}
