//! How a whole file may be quantized: the names that people give, and what they mean for most of its tensors.

use crate::TensorType;

/// A mixture of tensor types, named after the one that most tensors have. The value of `general.file_type`.
#[expect(non_camel_case_types, reason = "the names are the format's, and people search for them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_K_S,
    Q4_K_M,
    Q5_K_M,
    Q6_K,
}

/// Its name, its number in a file, and the type of most tensors. Ollama's own five come first, in its order.
const TABLE: [(Quantization, &str, u32, TensorType); 9] = [
    (Quantization::F32, "F32", 0, TensorType::F32),
    (Quantization::F16, "F16", 1, TensorType::F16),
    (Quantization::Q4_K_S, "Q4_K_S", 14, TensorType::Q4K),
    (Quantization::Q4_K_M, "Q4_K_M", 15, TensorType::Q4K),
    (Quantization::Q8_0, "Q8_0", 7, TensorType::Q8_0),
    (Quantization::BF16, "BF16", 32, TensorType::BF16),
    (Quantization::Q4_0, "Q4_0", 2, TensorType::Q4_0),
    (Quantization::Q5_K_M, "Q5_K_M", 17, TensorType::Q5K),
    (Quantization::Q6_K, "Q6_K", 18, TensorType::Q6K),
];

impl Quantization {
    pub fn all() -> impl Iterator<Item = Quantization> {
        TABLE.iter().map(|row| row.0)
    }

    /// In any case; `Q4_K` is short for `Q4_K_M`.
    pub fn parse(name: &str) -> Option<Quantization> {
        let name = if name.eq_ignore_ascii_case("Q4_K") { "Q4_K_M" } else { name };
        TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What `general.file_type` says.
    pub fn file_type(self) -> u32 {
        self.row().2
    }

    /// The type of most tensors.
    pub fn main_type(self) -> TensorType {
        self.row().3
    }

    fn row(self) -> &'static (Quantization, &'static str, u32, TensorType) {
        TABLE.iter().find(|row| row.0 == self).expect("a test holds that every variant has a row")
    }
}

impl std::fmt::Display for Quantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label;

    #[test]
    fn a_quantization_is_found_by_its_name_and_said_by_its_number() {
        use Quantization::*;
        for quantization in [F32, F16, BF16, Q8_0, Q4_0, Q4_K_S, Q4_K_M, Q5_K_M, Q6_K] {
            assert_eq!(Quantization::parse(&quantization.name().to_lowercase()), Some(quantization));
            // F32 is 0, which reads as "unknown" everywhere.
            let said = label::file_type(quantization.file_type().into());
            assert!(said == quantization.name() || quantization == F32, "{said}");
        }
        assert_eq!(Quantization::parse("q4_k"), Some(Q4_K_M));
        assert_eq!(Quantization::parse("Q3_K_M"), None);
        assert_eq!(Quantization::parse(""), None);
    }
}
