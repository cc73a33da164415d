//! The table of pre-tokenizers. The names are llama.cpp's; the patterns come from the `tokenizer.json` of the models.

/// One way to cut a text.
pub(super) struct Row {
    /// The values of `tokenizer.ggml.pre` that mean it.
    pub names: &'static [&'static str],
    pub stages: &'static [Stage],
    pub whole_words: bool,
    pub add_bos: bool,
    pub default_bos: bool,
}

/// One pass of a pattern over the text.
pub(super) struct Stage {
    pub pattern: &'static str,
    pub space: Space,
}

/// What a match that is nothing but whitespace does with its last character when a word follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Keeps it.
    Keep,
    /// Leaves it to the word: `\s+(?!\S)|\s+`.
    Lend,
    /// The same, but what ends in a line break keeps it: the pattern has `\s*[\r\n]+` before that.
    LendInLine,
}

const fn keep(pattern: &'static str) -> Stage {
    Stage { pattern, space: Space::Keep }
}

const fn lend(pattern: &'static str) -> Stage {
    Stage { pattern, space: Space::Lend }
}

const fn lend_in_line(pattern: &'static str) -> Stage {
    Stage { pattern, space: Space::LendInLine }
}

const fn row(names: &'static [&'static str], stages: &'static [Stage]) -> Row {
    Row { names, stages, whole_words: false, add_bos: false, default_bos: true }
}

const GPT2: Stage = lend(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+");
const DIGIT: Stage = keep(r"\p{N}");
const THREE_DIGITS: Stage = keep(r"\p{N}{1,3}");
const LLAMA3: Stage = lend_in_line(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const QWEN2: Stage = lend_in_line(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// As Qwen 2's, but a letter keeps its accents.
const QWEN35: Stage = lend_in_line(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// Words split where lower case turns into upper case, with the contraction that follows.
const GPT4O: Stage = lend_in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const TEKKEN: Stage = lend_in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const DEEPSEEK3: Stage = lend_in_line(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
);
/// As Qwen 2's, but English contractions are nothing special.
const UFAKZEKA: Stage =
    lend_in_line(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
/// As Llama 3's, with whole numbers; where it is used they have been cut before.
const MINICPM5: Stage = lend_in_line(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// As GPT-4o's, with single digits.
const YOUTU: Stage = lend_in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE])?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
/// As GPT-4o's, but Chinese is apart.
const KIMI: Stage = lend_in_line(
    r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?:'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?:'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// Letters keep their accents, and words of one space between them stay together.
const EXAONE_MOE: Stage = lend_in_line(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+",
);
/// Letters of scripts with upper and lower case, as DeepSeek's first tokenizer lists them.
const DEEPSEEK_LETTERS: Stage = keep(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1F7D}ᾀ-ᾴᾶ-ᾼ\u{1FBE}ῂ-ῄῆ-ῌῐ-\u{1FD3}ῖ-\u{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);
const DEEPSEEK_CHINESE: Stage = keep(r"[一-龥ࠀ-一가-\u{D7FF}]+");
const BLOOM: Stage = keep(r" ?[^(\s|.,!?…。，、।۔،)]+");

pub(super) const ROWS: &[Row] = &[
    row(&["default"], &[keep(r"[\p{P}\$\+<=>\^~\|]+"), GPT2, keep(r"\p{N}+"), keep("[0-9][0-9][0-9]")]),
    row(
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "exaone4",
            "granite-docling",
        ],
        &[GPT2],
    ),
    row(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    Row {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        stages: &[LLAMA3],
        whole_words: true,
        add_bos: true,
        default_bos: true,
    },
    row(&["dbrx", "smaug-bpe"], &[LLAMA3]),
    Row { default_bos: false, ..row(&["chatglm-bpe"], &[LLAMA3]) },
    Row { default_bos: false, whole_words: true, ..row(&["glm4", "glm5"], &[LLAMA3]) },
    Row { whole_words: true, ..row(&["minicpm5"], &[THREE_DIGITS, MINICPM5]) },
    row(&["ufakzeka"], &[UFAKZEKA]),
    row(&["laguna"], &[keep(r"[^\n]+|[\n]+"), QWEN2]),
    row(&["kimi-k2"], &[KIMI]),
    row(&["exaone-moe"], &[EXAONE_MOE]),
    Row {
        whole_words: true,
        ..row(
            &["youtu"],
            &[
                keep(
                    r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\u{303f}\u{fe30}-\u{fe4f}]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+",
                ),
                YOUTU,
            ],
        )
    },
    row(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "grok-2",
            "solar-open",
        ],
        &[QWEN2],
    ),
    row(&["qwen35"], &[QWEN35]),
    row(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    Row { whole_words: true, ..row(&["granite-embed-multi-97m"], &[GPT4O]) },
    Row { whole_words: true, add_bos: true, ..row(&["tekken"], &[TEKKEN]) },
    row(&["falcon"], &[keep(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, keep("[0-9][0-9][0-9]")]),
    row(
        &["deepseek-llm"],
        &[
            keep(r"[\r\n]"),
            DEEPSEEK_LETTERS,
            keep(r"\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+"),
            keep(r"\s+$"),
            DEEPSEEK_CHINESE,
            keep(r"\p{N}+"),
        ],
    ),
    row(
        &["deepseek-coder"],
        &[keep(r"[\r\n]"), keep(r"\s?\p{L}+"), keep(r"\s?\p{P}+"), DEEPSEEK_CHINESE, DIGIT],
    ),
    row(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[THREE_DIGITS, keep(r"[一-龥\u{3040}-ゟ゠-ヿ]+"), DEEPSEEK3],
    ),
    row(&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM]),
    row(&["viking"], &[BLOOM, DIGIT]),
    row(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[lend_in_line(
            r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+",
        )],
    ),
    row(
        &["seed-coder"],
        &[lend_in_line(
            r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+",
        )],
    ),
];
