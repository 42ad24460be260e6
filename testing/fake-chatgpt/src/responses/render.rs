//! Delta events, rendered a block at a time so that an event costs a copy and no allocation.

use std::sync::{Arc, LazyLock};

use bytes::{BufMut as _, Bytes, BytesMut};

/// How many events are rendered into one buffer.
pub(crate) const BLOCK_EVENTS: usize = 32;

/// Rough size of a delta event, to size the buffer of a block.
const EVENT_BYTES: usize = 256;

const WORDS: [&str; 24] = [
    "The",
    " quick",
    " brown",
    " fox",
    " jumps",
    " over",
    " the",
    " lazy",
    " dog",
    " while",
    " seven",
    " grey",
    " geese",
    " watch",
    " from",
    " a",
    " low",
    " stone",
    " wall",
    " and",
    " nobody",
    " says",
    " anything",
    ".",
];

/// [`WORDS`] as JSON strings.
static WORDS_JSON: LazyLock<Vec<Box<[u8]>>> =
    LazyLock::new(|| WORDS.iter().map(|word| json_string(word).into_boxed_slice()).collect());

/// The texts of a run of deltas.
#[derive(Clone, Debug)]
pub(crate) enum Pieces {
    /// So many pieces of synthetic text.
    Words(u64),
    /// Given text, already as JSON strings.
    Given(Arc<[Box<[u8]>]>),
}

impl Pieces {
    /// Splits text after spaces and line ends, so that the pieces joined give the text again.
    pub(crate) fn of_text(text: &str) -> Self {
        Self::Given(text.split_inclusive([' ', '\n']).map(|piece| json_string(piece).into_boxed_slice()).collect())
    }

    /// Splits text into pieces of about `chars` characters, as arguments are streamed.
    pub(crate) fn of_chars(text: &str, chars: usize) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let piece = |chunk: &[char]| json_string(&chunk.iter().collect::<String>()).into_boxed_slice();
        Self::Given(letters.chunks(chars).map(piece).collect())
    }

    /// How many pieces there are.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Words(count) => *count,
            Self::Given(pieces) => pieces.len() as u64,
        }
    }

    fn get(&self, index: u64) -> &[u8] {
        match self {
            Self::Words(_) => &WORDS_JSON[(index % WORDS.len() as u64) as usize],
            Self::Given(pieces) => pieces.get(index as usize).map_or(b"\"\"", |piece| piece),
        }
    }
}

/// What `count` synthetic deltas say together.
pub(crate) fn words(count: u64) -> String {
    WORDS.iter().cycle().take(count as usize).copied().collect()
}

/// A run of events that differ in their sequence number and their delta only.
#[derive(Clone, Debug)]
pub(crate) struct DeltaRun {
    /// Everything before the sequence number.
    before_sequence: Arc<[u8]>,
    /// Everything between it and the delta.
    before_delta: Arc<[u8]>,
    /// Everything after the delta.
    after_delta: &'static [u8],
    pieces: Pieces,
    first_piece: u64,
    first_sequence: u64,
    pub(crate) count: u64,
}

impl DeltaRun {
    /// `place` are the members that locate the item, with a comma at each side.
    pub(crate) fn new(
        name: &str,
        place: &str,
        after: &'static str,
        pieces: Pieces,
        count: u64,
        first_sequence: u64,
    ) -> Self {
        let before_sequence = format!("event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":");
        Self {
            before_sequence: Arc::from(before_sequence.into_bytes()),
            before_delta: Arc::from(format!("{place}\"delta\":").into_bytes()),
            after_delta: after.as_bytes(),
            pieces,
            first_piece: 0,
            first_sequence,
            count,
        }
    }

    /// The first `count` events, and the others.
    pub(crate) fn split_at(&self, count: u64) -> (Self, Self) {
        let kept = Self { count, ..self.clone() };
        let dropped = Self {
            first_piece: self.first_piece + count,
            first_sequence: self.first_sequence + count,
            count: self.count - count,
            ..self.clone()
        };
        (kept, dropped)
    }
}

/// A place in a run, and the block rendered around it.
#[derive(Debug)]
pub(crate) struct DeltaCursor {
    run: Arc<DeltaRun>,
    next: u64,
    block: Bytes,
    lengths: [u32; BLOCK_EVENTS],
    block_events: usize,
    block_at: usize,
}

impl DeltaCursor {
    pub(crate) fn new(run: Arc<DeltaRun>) -> Self {
        Self { run, next: 0, block: Bytes::new(), lengths: [0; BLOCK_EVENTS], block_events: 0, block_at: 0 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.block_at == self.block_events && self.next == self.run.count
    }

    /// The next event.
    pub(crate) fn next_event(&mut self) -> Option<Bytes> {
        if self.block_at == self.block_events {
            self.render_block();
        }
        if self.block_events == 0 {
            return None;
        }
        let length = self.lengths[self.block_at] as usize;
        self.block_at += 1;
        Some(self.block.split_to(length))
    }

    /// What is left of the block as one piece, and how many events it holds.
    pub(crate) fn next_block(&mut self) -> Option<(Bytes, u64)> {
        if self.block_at == self.block_events {
            self.render_block();
        }
        let events = self.block_events - self.block_at;
        self.block_at = self.block_events;
        (events > 0).then(|| (std::mem::take(&mut self.block), events as u64))
    }

    fn render_block(&mut self) {
        let run = &self.run;
        let events = (run.count - self.next).min(BLOCK_EVENTS as u64) as usize;
        let mut block = BytesMut::with_capacity(events * EVENT_BYTES);
        for length in &mut self.lengths[..events] {
            let before = block.len();
            block.put_slice(&run.before_sequence);
            put_number(&mut block, run.first_sequence + self.next);
            block.put_slice(&run.before_delta);
            block.put_slice(run.pieces.get(run.first_piece + self.next));
            block.put_slice(run.after_delta);
            *length = (block.len() - before) as u32;
            self.next += 1;
        }
        self.block_events = events;
        self.block_at = 0;
        self.block = block.freeze();
    }
}

fn put_number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

pub(crate) fn json_string(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_else(|_| b"\"\"".to_vec())
}
