//! Request bodies that a client has packed with zstd (reference: api.md section 0.3), within the bounds that Ollama
//! has for them.

use std::io::Read as _;

use api::{Code, Error, Result};
use http::{HeaderMap, header};
use ruzstd::decoding::StreamingDecoder;

/// What a frame may make us keep while it is unpacked.
const MAX_WINDOW_BYTES: u64 = 8 << 20;
/// A kilobyte can stand for gigabytes.
const MAX_BYTES: usize = 20 << 20;

pub fn is_packed(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_some_and(|value| value == "zstd")
}

/// What the one frame in `body` stands for.
pub async fn unpack(body: impl AsRef<[u8]> + Send + 'static) -> Result<Vec<u8>> {
    // Twenty megabytes take tens of milliseconds, which other requests should not wait for.
    let unpacked = tokio::task::spawn_blocking(move || unpack_frame(body.as_ref()));
    unpacked.await.unwrap_or_else(|_| Err(broken()))
}

fn unpack_frame(frame: &[u8]) -> Result<Vec<u8>> {
    let decoder = StreamingDecoder::new_with_max_window_size(frame, MAX_WINDOW_BYTES);
    let mut decoder = decoder.map_err(|_| broken())?;
    let mut bytes = Vec::new();
    let read = decoder.by_ref().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|_| broken())?;
    if bytes.len() > MAX_BYTES {
        let text = format!("decompressed request body must be at most {MAX_BYTES} bytes, got more");
        return Err(Error::new(Code::TooLarge, text));
    }
    let promised = decoder.decoder.get_checksum_from_data();
    if promised.is_some() && promised != decoder.decoder.get_calculated_checksum() {
        return Err(broken());
    }
    Ok(bytes)
}

fn broken() -> Error {
    Error::invalid("failed to decompress request body")
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    /// A frame by hand: the exponent of its window, then blocks that each repeat one byte.
    fn frame(window_exponent: u8, repeats: &[u32]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, window_exponent << 3];
        for (at, count) in repeats.iter().enumerate() {
            let is_last = u32::from(at + 1 == repeats.len());
            let repeated = 1 << 1;
            frame.extend_from_slice(&(count << 3 | repeated | is_last).to_le_bytes()[..3]);
            frame.push(b' ');
        }
        frame
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        for text in ["", "{}", &"hello ".repeat(100_000)] {
            let packed = compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
            assert_eq!(unpack_frame(&packed).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let whole = compress_to_vec(&b"hello hello hello"[..], CompressionLevel::Fastest);
        for bytes in [&b""[..], b"{}", &whole[..whole.len() - 5], &[0x28, 0xB5, 0x2F, 0xFD]] {
            assert_eq!(unpack_frame(bytes).unwrap_err(), broken());
        }
        let mut changed = whole;
        if let Some(last) = changed.last_mut() {
            *last ^= 1;
        }
        assert_eq!(unpack_frame(&changed).unwrap_err(), broken(), "the checksum is looked at");
    }

    #[test]
    fn a_window_ends_at_its_bound() {
        // 1 KiB times two to the exponent.
        assert_eq!(unpack_frame(&frame(13, &[9])).unwrap(), [b' '; 9]);
        assert_eq!(unpack_frame(&frame(14, &[9])).unwrap_err(), broken());
        assert_eq!(unpack_frame(&frame(31, &[9])).unwrap_err(), broken());
    }

    #[test]
    fn a_bomb_is_not_unpacked_beyond_the_bound() {
        let blocks = vec![128 << 10; MAX_BYTES >> 17];
        assert_eq!(unpack_frame(&frame(13, &blocks)).unwrap().len(), MAX_BYTES);
        let bomb = frame(13, &[&blocks[..], &[1]].concat());
        assert!(bomb.len() < 1000);
        assert_eq!(unpack_frame(&bomb).unwrap_err().code, Code::TooLarge);
    }
}
