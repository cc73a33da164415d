//! Tensor types and the index entry of one tensor.

/// How the elements of a tensor are stored. Names and ids are ggml's.
#[expect(non_camel_case_types, reason = "the names are the format's, and people search for them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
}

/// One entry of the tensor index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    /// ggml order: `shape[0]` is contiguous (the in features of a weight).
    pub shape: Vec<u64>,
    pub kind: TensorType,
    /// From the start of the data section ([`crate::Gguf::data_offset`]).
    pub offset: u64,
    pub bytes: u64,
}

/// Type, id, name, elements per block, bytes per block. The gaps in the ids are types that ggml removed.
const TABLE: &[(TensorType, u32, &str, u64, u64)] = &[
    (TensorType::F32, 0, "F32", 1, 4),
    (TensorType::F16, 1, "F16", 1, 2),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18),
    (TensorType::Q4_1, 3, "Q4_1", 32, 20),
    (TensorType::Q5_0, 6, "Q5_0", 32, 22),
    (TensorType::Q5_1, 7, "Q5_1", 32, 24),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34),
    (TensorType::Q8_1, 9, "Q8_1", 32, 36),
    (TensorType::Q2K, 10, "Q2_K", 256, 84),
    (TensorType::Q3K, 11, "Q3_K", 256, 110),
    (TensorType::Q4K, 12, "Q4_K", 256, 144),
    (TensorType::Q5K, 13, "Q5_K", 256, 176),
    (TensorType::Q6K, 14, "Q6_K", 256, 210),
    (TensorType::Q8K, 15, "Q8_K", 256, 292),
    (TensorType::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    (TensorType::IQ2_XS, 17, "IQ2_XS", 256, 74),
    (TensorType::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    (TensorType::IQ1_S, 19, "IQ1_S", 256, 50),
    (TensorType::IQ4_NL, 20, "IQ4_NL", 32, 18),
    (TensorType::IQ3_S, 21, "IQ3_S", 256, 110),
    (TensorType::IQ2_S, 22, "IQ2_S", 256, 82),
    (TensorType::IQ4_XS, 23, "IQ4_XS", 256, 136),
    (TensorType::I8, 24, "I8", 1, 1),
    (TensorType::I16, 25, "I16", 1, 2),
    (TensorType::I32, 26, "I32", 1, 4),
    (TensorType::I64, 27, "I64", 1, 8),
    (TensorType::F64, 28, "F64", 1, 8),
    (TensorType::IQ1_M, 29, "IQ1_M", 256, 56),
    (TensorType::BF16, 30, "BF16", 1, 2),
    (TensorType::TQ1_0, 34, "TQ1_0", 256, 54),
    (TensorType::TQ2_0, 35, "TQ2_0", 256, 66),
    (TensorType::MXFP4, 39, "MXFP4", 32, 17),
    (TensorType::NVFP4, 40, "NVFP4", 64, 36),
    (TensorType::Q1_0, 41, "Q1_0", 128, 18),
];

// === impl TensorType ===

impl TensorType {
    /// Every type, in the order of the ids.
    pub fn all() -> impl Iterator<Item = TensorType> {
        TABLE.iter().map(|row| row.0)
    }

    pub fn from_id(id: u32) -> Option<TensorType> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The name as ggml prints it: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements that are stored together; a row is a whole number of blocks.
    pub fn block_elements(self) -> u64 {
        self.row().3
    }

    pub fn block_bytes(self) -> u64 {
        self.row().4
    }

    /// The bytes that a tensor of `shape` takes; `None` when that does not fit `u64` or a row is no whole number of blocks.
    pub fn tensor_bytes(self, shape: &[u64]) -> Option<u64> {
        let row = shape.first().copied().unwrap_or(1);
        if row % self.block_elements() != 0 {
            return None;
        }
        let elements = shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension))?;
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    fn row(self) -> &'static (TensorType, u32, &'static str, u64, u64) {
        // The table lists the variants in order of declaration; a test holds that.
        &TABLE[self as usize]
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Tensor ===

impl Tensor {
    /// The product of the shape. It cannot overflow: the parser checked it.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_every_type_at_its_own_place() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, at, "{}", row.2);
            assert_eq!(TensorType::from_id(row.1), Some(row.0));
        }
        assert_eq!(TensorType::from_id(4), None);
        assert_eq!(TensorType::from_id(42), None);
    }

    #[test]
    fn a_size_is_whole_blocks_and_never_overflows() {
        assert_eq!(TensorType::Q4K.tensor_bytes(&[512, 3]), Some(2 * 3 * 144));
        assert_eq!(TensorType::F16.tensor_bytes(&[]), Some(2));
        assert_eq!(TensorType::Q4_0.tensor_bytes(&[33]), None);
        assert_eq!(TensorType::F32.tensor_bytes(&[1 << 40, 1 << 40]), None);
        assert_eq!(TensorType::F32.tensor_bytes(&[1 << 62]), None);
    }
}
