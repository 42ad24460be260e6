//! Undoes a `Content-Encoding`, never yielding more than the bound.

use std::io::{Cursor, Read};

use bytes::Bytes;

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

/// Decodes a body.
///
/// # Errors
/// 413 when it grows above the bound, 400 when it is corrupt.
pub(super) async fn decode(coding: Coding, body: Bytes, bytes_max: u64) -> Result<Bytes, Rejection> {
    if body.len() < BLOCKING_BYTES_MIN {
        return decode_now(coding, &body, bytes_max);
    }
    let decoded = tokio::task::spawn_blocking(move || decode_now(coding, &body, bytes_max)).await;
    decoded.unwrap_or_else(|_| Err(Rejection::internal()))
}

fn decode_now(coding: Coding, body: &[u8], bytes_max: u64) -> Result<Bytes, Rejection> {
    let source = Cursor::new(body);
    let decoded = match coding {
        Coding::Zstd => zstd::stream::read::Decoder::new(source).and_then(|decoder| read_bounded(decoder, bytes_max)),
        Coding::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(source), bytes_max),
        Coding::Brotli => read_bounded(brotli::Decompressor::new(source, 4096), bytes_max),
        Coding::Deflate => read_bounded(flate2::read::ZlibDecoder::new(source), bytes_max),
    };
    match decoded {
        Ok(decoded) if decoded.len() as u64 > bytes_max => Err(Rejection::payload_too_large(bytes_max)),
        Ok(decoded) => Ok(Bytes::from(decoded)),
        Err(_) => Err(Rejection::invalid_request(None, "The request body does not decode as its Content-Encoding says.")),
    }
}

fn read_bounded(decoder: impl Read, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder.take(bytes_max.saturating_add(1)).read_to_end(&mut decoded)?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

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
                brotli::BrotliCompress(&mut Cursor::new(plain), &mut out, &brotli::enc::BrotliEncoderParams::default())
                    .unwrap();
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
    async fn a_bomb_is_refused_without_being_unpacked() {
        let bomb = Bytes::from(encoded(Coding::Zstd, &vec![0; 64 << 20]));
        assert!(bomb.len() < 64 << 10);
        assert_eq!(decode(Coding::Zstd, bomb, 1 << 20).await.unwrap_err().status, 413);
    }
}
