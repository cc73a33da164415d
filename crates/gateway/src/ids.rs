//! Ids that clients of other APIs expect in answers: derived from the id of the call, so that one request, its log
//! lines and its answer can be matched, and a test can tell them beforehand.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::call::Call;

/// Bytes of an id of Anthropic's.
const LONG: usize = 12;

/// `prefix` and 24 hexadecimal digits.
pub fn long(prefix: &str, call: &Call) -> String {
    let digest = Sha256::digest(call.id.as_bytes());
    let mut id = prefix.to_owned();
    for byte in &digest[..LONG] {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// `prefix` and a number below `bound`.
pub fn short(prefix: &str, call: &Call, bound: u64) -> String {
    let digest = Sha256::digest(call.id.as_bytes());
    let number = digest[..8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{prefix}{}", number % bound)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn one_call_has_one_id_and_another_has_another() {
        let call = |id: &str| Call { id: id.into(), began: Instant::now() };
        let id = long("msg_", &call("a"));
        assert_eq!(id, "msg_ca978112ca1bbdcafac231b3");
        assert_eq!(long("msg_", &call("a")), id);
        assert_ne!(long("msg_", &call("b")), id);
        assert_eq!(short("resp_", &call("a"), 1000), short("resp_", &call("a"), 1000));
        assert!(short("", &call("a"), 10).parse::<u64>().unwrap() < 10);
    }
}
