//! The table by which SentencePiece normalises a text: which bytes become which others, most of it Unicode's NFKC.
//!
//! `tokenizer.ggml.precompiled_charsmap` is a little-endian length in bytes, a double array of so many (Aoe 1989, packed
//! as Darts-clone does), and texts that each end in a zero. The file decides what is in there, so every index is
//! checked: a step that leads nowhere ends the match.

/// Longest text that stands for another: NFKC's has 33 bytes. It bounds how much longer a text can become.
const MAX_REPLACEMENT_BYTES: usize = 256;

/// The default one replaces nothing.
#[derive(Debug, Default)]
pub(super) struct Charsmap {
    /// A unit has in bits 0 to 7 the byte that leads to it, in bit 8 whether a replacement belongs to it, in bits 10 to
    /// 30 the way to its children, shifted by 8 if bit 9 is set. One with bit 31 is a place in `replacements`.
    units: Vec<u32>,
    replacements: Vec<u8>,
}

// === impl Charsmap ===

impl Charsmap {
    /// Fails with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Charsmap, String> {
        let (length, rest) = bytes.split_first_chunk().ok_or("it is shorter than its own length")?;
        let length = u32::from_le_bytes(*length) as usize;
        let Some((units, replacements)) =
            rest.split_at_checked(length).filter(|(_, texts)| !texts.is_empty())
        else {
            return Err(format!("its table must be shorter than its {} bytes, got {length}", bytes.len()));
        };
        let longest = replacements.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0);
        if longest > MAX_REPLACEMENT_BYTES {
            return Err(format!(
                "a text in it must have at most {MAX_REPLACEMENT_BYTES} bytes, got {longest}"
            ));
        }
        let (units, _) = units.as_chunks();
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(Charsmap { units, replacements: replacements.to_vec() })
    }

    /// What the longest beginning of `text` that the table knows becomes, and how long that beginning is.
    pub fn longest(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let mut at = children(*self.units.first()?);
        let mut found = None;
        for (index, &byte) in text.iter().enumerate().take_while(|(_, byte)| **byte != 0) {
            at ^= u32::from(byte);
            let Some(unit) = self.unit(at).filter(|unit| unit & (1 << 31 | 0xFF) == u32::from(byte)) else {
                break;
            };
            at ^= children(unit);
            if unit >> 8 & 1 == 1 {
                found = self.unit(at).map(|unit| (unit & !(1 << 31), index + 1)).or(found);
            }
        }
        let (start, len) = found?;
        let text = self.replacements.get(start as usize..)?;
        Some((text.split(|&byte| byte == 0).next().unwrap_or_default(), len))
    }

    fn unit(&self, at: u32) -> Option<u32> {
        self.units.get(at as usize).copied()
    }
}

/// What a byte is combined with to get to the child of a unit.
fn children(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// "a" becomes "xy", "ab" becomes nothing. By hand: root 0 has its children at 256 ^ byte.
    fn small() -> Vec<u8> {
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        units[256 ^ 97] = 512 << 10 | 1 << 8 | 97;
        let a = 256 ^ 97 ^ 512;
        units[a] = 1 << 31;
        units[a ^ 98] = 64 << 10 | 1 << 8 | 98;
        units[a ^ 98 ^ 64] = 1 << 31 | 2;
        let mut bytes = 4096u32.to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"xy\0");
        bytes
    }

    #[test]
    fn the_longest_beginning_is_replaced() {
        let map = Charsmap::parse(&small()).unwrap();
        assert_eq!(map.longest(b"ac"), Some((&b"xy"[..], 1)));
        assert_eq!(map.longest(b"abc"), Some((&b""[..], 2)));
        assert_eq!((map.longest(b"b"), map.longest(b""), map.longest(b"\0a")), (None, None, None));
        assert_eq!(Charsmap::default().longest(b"a"), None);
    }

    #[test]
    fn a_table_that_lies_about_its_length_is_refused() {
        for (bytes, problem) in [
            (vec![1, 0, 0], "shorter than its own length"),
            (vec![4, 0, 0, 0, 1, 2, 3, 4], "must be shorter than its 8 bytes, got 4"),
            (vec![255; 9], "must be shorter than its 9 bytes, got 4294967295"),
            ([vec![0; 4], vec![b'a'; 257]].concat(), "at most 256 bytes, got 257"),
        ] {
            let error = Charsmap::parse(&bytes).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_table_leads_astray(mut bytes in proptest::collection::vec(any::<u8>(), 64..512), text: Vec<u8>) {
            bytes[..4].copy_from_slice(&40u32.to_le_bytes());
            if let Ok(map) = Charsmap::parse(&bytes) {
                let len = map.longest(&text).map_or(0, |(_, len)| len);
                prop_assert!(len <= text.len());
            }
        }
    }
}
