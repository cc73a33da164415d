//! Deterministic mixing of numbers: ids, vectors and texts that must be the same whenever they are asked for again.
//! Not for secrets, and not for tables that an attacker could fill.

/// One round of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of a list of tokens, order included.
pub fn tokens(tokens: &[u32]) -> u64 {
    tokens.iter().fold(tokens.len() as u64, |hash, token| mix(hash ^ u64::from(*token)))
}
