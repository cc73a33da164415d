//! The names that people see: the file type and the rounded parameter count, as Ollama prints them.

/// The name of `general.file_type`. 0 (F32) reads as `unknown`, as in Ollama, where 0 cannot be told from absent.
pub(crate) fn file_type(id: u64) -> &'static str {
    match id {
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        _ => "unknown",
    }
}

/// A count as people say it: `7.2B`, `7B`, `494.03M`, `15K`, `999`.
pub fn human_count(count: u64) -> String {
    const THOUSAND: u64 = 1_000;
    const MILLION: u64 = 1_000_000;
    const BILLION: u64 = 1_000_000_000;
    let scaled = |unit: u64, decimals: usize, letter: char| {
        let decimals = if count.is_multiple_of(unit) { 0 } else { decimals };
        format!("{:.decimals$}{letter}", count as f64 / unit as f64)
    };
    match count {
        BILLION.. => scaled(BILLION, 1, 'B'),
        MILLION.. => scaled(MILLION, 2, 'M'),
        THOUSAND.. => scaled(THOUSAND, 0, 'K'),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_reads_as_ollama_prints_it() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1K"),
            (15_400, "15K"),
            (494_032_768, "494.03M"),
            (2_000_000, "2M"),
            (999_999_999, "1000.00M"),
            (7_000_000_000, "7B"),
            (7_248_023_552, "7.2B"),
        ];
        for (count, expected) in cases {
            assert_eq!(human_count(count), expected);
        }
    }

    #[test]
    fn file_type_zero_reads_as_unknown() {
        assert_eq!(file_type(0), "unknown");
        assert_eq!(file_type(15), "Q4_K_M");
        assert_eq!(file_type(4), "unknown");
        assert_eq!(file_type(1000), "unknown");
    }
}
