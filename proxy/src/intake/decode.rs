//! Undoes a `Content-Encoding`, never yielding more than the bound.

use std::io::{Cursor, Read};

use bytes::Bytes;

use super::HeldBytes;
use crate::rejection::Rejection;

/// Bodies from this size on are decoded off the event loop.
const BLOCKING_BYTES_MIN: usize = 64 * 1024;

/// A coding that we undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// RFC 8878. The Codex CLI uses it.
    Zstd,
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 1950 (zlib), as HTTP means it.
    Deflate,
}

impl Coding {
    /// Reads a header's value; `Ok(None)` is "no coding".
    pub(super) fn parse(text: &str) -> Result<Option<Self>, ()> {
        match text.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "zstd" => Ok(Some(Self::Zstd)),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "br" => Ok(Some(Self::Brotli)),
            "deflate" => Ok(Some(Self::Deflate)),
            _ => Err(()),
        }
    }
}

/// How much is decoded between two looks at the bounds.
const STEP_BYTES: usize = 1024 * 1024;

/// Decodes a body, holding memory for what comes out.
///
/// # Errors
/// 413 when it grows above the bound, 400 when it is corrupt, 503 when there is no memory for it.
pub(super) async fn decode(
    coding: Coding,
    body: Bytes,
    bytes_max: u64,
    held: &mut HeldBytes<'_>,
) -> Result<Bytes, Rejection> {
    let is_small = body.len() < BLOCKING_BYTES_MIN;
    let mut decoding = Decoding::begin(coding, body)?;
    // A small body may still be a bomb, so only its first step is taken here.
    if is_small {
        if !decoding.step(bytes_max)? {
            return Ok(Bytes::from(decoding.decoded));
        }
        decoding.hold(held)?;
    }
    let mut state = Some(decoding);
    loop {
        // One step off the event loop at a time: between steps the exchange can be cancelled and memory is accounted.
        let Some(mut decoding) = state.take() else { return Err(Rejection::internal()) };
        let stepped = tokio::task::spawn_blocking(move || decoding.step(bytes_max).map(|goes_on| (decoding, goes_on)));
        let (decoding, goes_on) = stepped.await.map_err(|_| Rejection::internal())??;
        if !goes_on {
            return Ok(Bytes::from(decoding.decoded));
        }
        decoding.hold(held)?;
        state = Some(decoding);
    }
}

/// A body that is being decoded.
struct Decoding {
    source: Box<dyn Read + Send>,
    coded_bytes: u64,
    decoded: Vec<u8>,
}

impl Decoding {
    fn begin(coding: Coding, body: Bytes) -> Result<Self, Rejection> {
        let coded_bytes = body.len() as u64;
        let body = Cursor::new(body);
        let source: Box<dyn Read + Send> = match coding {
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(body).map_err(|_| corrupt())?),
            Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(body, 4096)),
            Coding::Deflate => Box::new(flate2::read::ZlibDecoder::new(body)),
        };
        Ok(Self { source, coded_bytes, decoded: Vec::new() })
    }

    /// Decodes some more. Whether there may be still more.
    fn step(&mut self, bytes_max: u64) -> Result<bool, Rejection> {
        let step = (&mut self.source).take(STEP_BYTES as u64).read_to_end(&mut self.decoded).map_err(|_| corrupt())?;
        if self.decoded.len() as u64 > bytes_max {
            return Err(Rejection::payload_too_large(bytes_max));
        }
        Ok(step == STEP_BYTES)
    }

    /// Holds memory for the coded and the decoded bytes, which exist side by side. Not waited for: whoever holds the
    /// rest may be waiting for us.
    fn hold(&self, held: &mut HeldBytes<'_>) -> Result<(), Rejection> {
        let wanted = self.coded_bytes + self.decoded.len() as u64 + STEP_BYTES as u64;
        if held.try_grow_to(wanted) { Ok(()) } else { Err(Rejection::busy()) }
    }
}

fn corrupt() -> Rejection {
    Rejection::invalid_request(None, "The request body does not decode as its Content-Encoding says.")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::BodyBudget;
    use super::*;

    async fn decode(coding: Coding, body: Bytes, bytes_max: u64) -> Result<Bytes, Rejection> {
        let budget = BodyBudget::new(1 << 30);
        super::decode(coding, body, bytes_max, &mut budget.hold(false)).await
    }

    fn encoded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Zstd => zstd::encode_all(plain, 3).unwrap(),
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Brotli => {
                let mut out = Vec::new();
                let fast = brotli::enc::BrotliEncoderParams { quality: 1, ..Default::default() };
                brotli::BrotliCompress(&mut Cursor::new(plain), &mut out, &fast).unwrap();
                out
            }
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    #[tokio::test]
    async fn every_coding_decodes_within_its_bound_and_no_further() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for coding in [Coding::Zstd, Coding::Gzip, Coding::Brotli, Coding::Deflate] {
            let body = Bytes::from(encoded(coding, &plain));
            let whole = decode(coding, body.clone(), plain.len() as u64).await.unwrap();
            assert_eq!(whole, plain, "{coding:?}");
            let refused = decode(coding, body.clone(), plain.len() as u64 - 1).await.unwrap_err();
            assert_eq!(refused.status, 413, "{coding:?}");
            let corrupt = body.slice(..body.len() / 2);
            assert_eq!(decode(coding, corrupt, u64::MAX).await.unwrap_err().status, 400, "{coding:?}");
        }
    }

    #[tokio::test]
    async fn decoded_bytes_are_held_too() {
        let body = Bytes::from(encoded(Coding::Gzip, &vec![7; 32 << 20]));
        let budget = BodyBudget::new(16 << 20);
        let refused = super::decode(Coding::Gzip, body, u64::MAX, &mut budget.hold(false)).await.unwrap_err();
        assert_eq!(refused.status, 503);
    }

    #[tokio::test]
    async fn a_bomb_is_refused_without_being_unpacked() {
        let bomb = Bytes::from(encoded(Coding::Zstd, &vec![0; 64 << 20]));
        assert!(bomb.len() < 64 << 10);
        assert_eq!(decode(Coding::Zstd, bomb, 1 << 20).await.unwrap_err().status, 413);
    }
}
