//! How a tile of sixteen rows of weights lies in memory.
//!
//! A tile is a row of chunks of 256 columns, the last one perhaps shorter: first the scales of a chunk, then its codes,
//! each a whole number of cache lines, so that a kernel reads one stream. Codes come in blocks of 32 columns, in planes
//! of 64 bytes: in a plane byte `4 * row + i` belongs to that row, so that one register holds four neighbouring
//! columns of all sixteen rows, a *quad*, and meets four bytes of activations that are the same for all of them.
//!
//! | bits | planes of a block |
//! | --- | --- |
//! | 2 | two, each four quads, two bits each |
//! | 3 | as 2, and one with the third bit of all eight quads |
//! | 4 | four, each quad `q` in its low half and quad `q + 4` in its high half |
//! | 5 | as 4, and one with the fifth bit of all eight quads |
//! | 6 | as 4, and two with the upper two bits, as 2 has them |
//! | 8 | eight, a quad each |
//!
//! Scales of types with 32-value blocks: sixteen half-precision scales per block, then sixteen minimums where the type
//! has them. Of types with 256-value blocks: sixteen half-precision scales (and minimums) of the block, then sixteen
//! bytes per group (and as many for the minimums).

use candle_core::quantized::GgmlDType;

use super::lanes::TILE;

/// Columns that share a scale of the activations.
pub(crate) const BLOCK: usize = 32;
/// Columns of a quad.
pub(crate) const QUAD: usize = 4;
/// Blocks of a chunk.
pub(crate) const BLOCKS: usize = 8;
/// Quads of a block.
pub(crate) const QUADS: usize = BLOCK / QUAD;
/// Bytes of a plane.
pub(crate) const PLANE: usize = QUAD * TILE;
const LINE: usize = 64;

/// A quantized type: weight = scale * (code - zero) + minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub bits: u32,
    /// Columns that share a scale of the weights.
    pub group: usize,
    /// Columns of one block in the file.
    pub unit: usize,
    /// The zero is two to this power.
    pub zero: Option<u32>,
    pub has_minimums: bool,
    /// Whether the byte scales of a 256-value block have a sign.
    pub has_signed_scales: bool,
}

/// A layout that a kernel is compiled for.
pub(super) trait Format {
    const KIND: GgmlDType;
    const LAYOUT: Layout;
}

const SMALL: Layout =
    Layout { bits: 4, group: 32, unit: 32, zero: None, has_minimums: false, has_signed_scales: false };
const LARGE: Layout = Layout { unit: 256, ..SMALL };

macro_rules! formats {
    ($($name:ident = $layout:expr;)*) => {
        $(
            pub(super) struct $name;
            impl Format for $name {
                const KIND: GgmlDType = GgmlDType::$name;
                const LAYOUT: Layout = $layout;
            }
        )*

        /// `None` for a type that is not quantized or that no weight uses.
        pub(crate) fn layout(kind: GgmlDType) -> Option<Layout> {
            Some(match kind {
                $(GgmlDType::$name => $name::LAYOUT,)*
                _ => return None,
            })
        }
    };
}

formats! {
    Q4_0 = Layout { zero: Some(3), ..SMALL };
    Q4_1 = Layout { has_minimums: true, ..SMALL };
    Q5_0 = Layout { bits: 5, zero: Some(4), ..SMALL };
    Q5_1 = Layout { bits: 5, has_minimums: true, ..SMALL };
    Q8_0 = Layout { bits: 8, zero: Some(7), ..SMALL };
    Q2K = Layout { bits: 2, group: 16, has_minimums: true, ..LARGE };
    Q3K = Layout { bits: 3, group: 16, zero: Some(2), has_signed_scales: true, ..LARGE };
    Q4K = Layout { has_minimums: true, ..LARGE };
    Q5K = Layout { bits: 5, has_minimums: true, ..LARGE };
    Q6K = Layout { bits: 6, group: 16, zero: Some(5), has_signed_scales: true, ..LARGE };
}

/// Evaluates an expression with `$format` standing for the format of a quantized type.
macro_rules! with_format {
    ($kind:expr, $format:ident => $run:expr) => {{
        use candle_core::quantized::GgmlDType as Kind;
        use $crate::kernels::layout as formats;
        match $kind {
            Kind::Q4_0 => {
                type $format = formats::Q4_0;
                $run
            }
            Kind::Q4_1 => {
                type $format = formats::Q4_1;
                $run
            }
            Kind::Q5_0 => {
                type $format = formats::Q5_0;
                $run
            }
            Kind::Q5_1 => {
                type $format = formats::Q5_1;
                $run
            }
            Kind::Q8_0 => {
                type $format = formats::Q8_0;
                $run
            }
            Kind::Q2K => {
                type $format = formats::Q2K;
                $run
            }
            Kind::Q3K => {
                type $format = formats::Q3K;
                $run
            }
            Kind::Q4K => {
                type $format = formats::Q4K;
                $run
            }
            Kind::Q5K => {
                type $format = formats::Q5K;
                $run
            }
            Kind::Q6K => {
                type $format = formats::Q6K;
                $run
            }
            other => unreachable!("{other:?} is not quantized"),
        }
    }};
}
pub(super) use with_format;

/// Two bits of four quads in each of two planes.
const TWO_BITS: usize = 2 * PLANE;
/// Four bits of two quads in each of four planes.
const FOUR_BITS: usize = 4 * PLANE;

impl Layout {
    /// Bytes of the codes of one block of 32 columns.
    pub const fn code_bytes(self) -> usize {
        match self.bits {
            2 => TWO_BITS,
            3 => TWO_BITS + PLANE,
            4 => FOUR_BITS,
            5 => FOUR_BITS + PLANE,
            6 => FOUR_BITS + TWO_BITS,
            _ => QUADS * PLANE,
        }
    }

    /// Groups of one unit.
    pub const fn groups(self) -> usize {
        self.unit / self.group
    }

    /// Bytes of the half-precision scales (or minimums) of a unit.
    pub const HALVES: usize = 2 * TILE;

    /// How many kinds of scale a group has: scales, and minimums.
    const fn kinds(self) -> usize {
        1 + self.has_minimums as usize
    }

    /// Whether groups have bytes beside the half-precision scales of their unit.
    pub const fn has_byte_scales(self) -> bool {
        self.unit > BLOCK
    }

    /// Bytes of the scales of one unit.
    pub const fn scale_bytes(self) -> usize {
        let bytes = if self.has_byte_scales() { self.groups() * TILE } else { 0 };
        self.kinds() * (Self::HALVES + bytes)
    }

    /// Where in the scales of a unit the bytes of a group begin; `kind` 1 = those of its minimum.
    pub const fn byte_scales(self, kind: usize, group: usize) -> usize {
        self.kinds() * Self::HALVES + (kind * self.groups() + group) * TILE
    }

    /// Bytes of the scales of a chunk of so many blocks.
    pub const fn chunk_scale_bytes(self, blocks: usize) -> usize {
        (blocks * BLOCK / self.unit * self.scale_bytes()).next_multiple_of(LINE)
    }

    /// Columns of a whole chunk.
    pub const CHUNK: usize = BLOCKS * BLOCK;

    /// Bytes of a tile.
    pub const fn tile_bytes(self, cols: usize) -> usize {
        let (chunks, rest) = (cols / Self::CHUNK, cols % Self::CHUNK / BLOCK);
        chunks * self.chunk_bytes(BLOCKS) + self.chunk_bytes(rest)
    }

    /// Bytes of a chunk of so many blocks.
    pub const fn chunk_bytes(self, blocks: usize) -> usize {
        self.chunk_scale_bytes(blocks) + blocks * self.code_bytes()
    }

    /// Where the codes of a quad lie in their block: together the fields give all bits.
    pub const fn fields(self, quad: usize) -> (Field, Option<Field>) {
        let four = Field { plane: quad % 4 * PLANE, right: 4 * (quad / 4) as u32, mask: 15, left: 0 };
        match self.bits {
            2 => (Field::two_bits(0, quad, 0), None),
            3 => (Field::two_bits(0, quad, 0), Some(Field::one_bit(TWO_BITS, quad, 2))),
            4 => (four, None),
            5 => (four, Some(Field::one_bit(FOUR_BITS, quad, 4))),
            6 => (four, Some(Field::two_bits(FOUR_BITS, quad, 4))),
            _ => (Field { plane: quad * PLANE, right: 0, mask: 255, left: 0 }, None),
        }
    }
}

/// Some bits of the codes of a quad: `(plane >> right & mask) << left`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub plane: usize,
    pub right: u32,
    pub mask: u8,
    pub left: u32,
}

impl Field {
    const fn two_bits(from: usize, quad: usize, left: u32) -> Field {
        Field { plane: from + quad / 4 * PLANE, right: 2 * (quad % 4) as u32, mask: 3, left }
    }

    const fn one_bit(from: usize, quad: usize, left: u32) -> Field {
        Field { plane: from, right: quad as u32, mask: 1, left }
    }
}
