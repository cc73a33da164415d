#!/usr/bin/env python3
"""Makes the golden token ids that `tests/tokenizer.rs` compares the tokenizer with.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    python make_tokens.py NAME=MODEL.gguf [NAME=MODEL.gguf ...]

It writes, beside itself:

texts.json           the texts: strings, or {"hex": ".."} for bytes that are not UTF-8
NAME.tokens.json     what llama.cpp makes of them
    `bos`, `eos`, `add_bos`, `eog`   the special tokens
    `pieces`     FNV-1a (64 bits, hex) over what all tokens render as, control tokens written out, each ended by 0xFF
    `tokens`     per text: its ids, control tokens parsed, nothing added
    `plain`      per text: the ids with control tokens taken as text; null = the same
    `added`      per text of the first ten: the ids with what the model adds at the ends
    `prefixed`   only for SentencePiece, per text of the first hundred: the ids when every text gets a space in front
                 (`tokenizer.ggml.add_space_prefix` overridden)
    `kept`       only for unigram vocabularies, per text: the ids when white space stays as it is
                 (`tokenizer.ggml.remove_extra_whitespaces` overridden)
    `bare`       the same without a space in front
pre.json             how each pre-tokenizer cuts the texts, seen through a vocabulary of all bytes and all pairs of bytes (and a
                     merge for each, in order), so that whatever is cut apart stays apart: {name: {text number: the
                     bytes of each token}}. Texts that are cut as under "gpt-2" are left out of the other rows
"""

import ctypes
import json
import pathlib
import random
import sys
import tempfile

import gguf
import llama_cpp

HERE = pathlib.Path(__file__).parent
# One of each row of the table; the names that share a row need no vectors.
PRE = [
    "gpt-2", "default", "smollm", "llama-bpe", "dbrx", "chatglm-bpe", "qwen2", "qwen35", "gpt-4o", "tekken", "falcon",
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "bloom", "viking", "bailingmoe", "seed-coder", "glm4", "minicpm5", "ufakzeka", "laguna", "kimi-k2",
    "exaone-moe", "youtu", "granite-embed-multi-97m",
]
OVERRIDE_BOOL, OVERRIDE_STRING = 2, 3


def written_texts():
    return [
        "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", " \n", "\n ", " \t\n \r\n", "\r\n\r\n", "\r",
        "Hello", " Hello", "  Hello", "Hello ", "Hello world", "Hello, world!", "hello  world", "a b", "a  b", "a   b",
        "a\tb", "a\nb", "a \nb", "a\n b", "a\n\n  b", "a \n \n b", "x = 1\n    y = 2\n\treturn x\n",
        "I'm you're he's we'll they'd I've don't", "I'M YOU'RE HE'S WE'LL THEY'D I'VE DON'T", "o'clock 'quoted' ''",
        "1", "12", "123", "1234", "12345678901234567890", "3.14159", "1,000,000.50", "2024-12-31T23:59:59Z", "0x1F",
        "a1b2c3", "v1.2.3-rc4", "٣٤٥", "½ ² ⅷ 三", "1 2  3", "№42", "100%", "$5.00", "50€", "#hashtag", "@user",
        "fn main() {\n    println!(\"{}\", 42);\n}\n", "if (a && b || !c) { return x->y[0]; }", "a+=b; c**=2; d//=3;",
        "def f(x: int = 0) -> list[str]:\n    return [str(x)] * 3\n", "SELECT * FROM t WHERE a <> 'b' -- c\n",
        "<div class=\"x\">&nbsp;</div>", "<!-- comment -->", "<b>bold</b> <i>it</i> <s>old</s>", "{\"a\": [1, 2.5, null]}",
        "https://example.org/a/b?c=d&e=f#g", "C:\\path\\to\\file.txt", "user@example.org", "--flag=value -x", "~/.config",
        "你好", "你好，世界！", "人工智能正在改变世界。", "中文 and English 混合 text", "日本語のテキスト", "カタカナ ひらがな 漢字",
        "한국어 텍스트", "ภาษาไทย", "हिन्दी पाठ", "বাংলা", "தமிழ்", "العربية", "עברית", "Русский текст", "Ελληνικά",
        "ქართული", "Հայերեն", "አማርኛ", "Tiếng Việt", "Zażółć gęślą jaźń", "Ünïcödé Straße ÇŞĞİı", "naïve café",
        "e\u0301 combining", "ﬁ ligature", "Ａｂｃ１２３", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "😀", "😀😃😄", "👨‍👩‍👧‍👦 family", "👍🏽", "🇩🇪🇫🇷", "❤️", "☃ ★ ♫",
        "“quotes” ‘single’ «guillemets»", "em—dash en–dash …", "non\u00a0breaking\u2003space", "zero\u200bwidth", "\ufeffBOM",
        "a\u2028b\u0085c", "▁under▁bar", "Ġstrange Ċ", "\x00", "\x01\x02\x7f", "\ufffd", "A" * 40, "ab" * 30, "-" * 70,
        "=" * 33, "." * 10, " " * 35 + "x", "\n" * 35 + "x", "\t" * 33, " \n" * 12, "!?" * 9, "the the the the",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "a<|endoftext|>b", " <|im_end|> ",
        "<|im_start|><|im_end|>", "<|im_start", "|im_end|>", "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<bos>", "x <bos> y <eos>", "<unused1><unused99>", "<unused999999>", "<0x0A>", "<pad><unk>", "[multimodal]", "</s><s>",
        "<table><tr><td>1</td></tr></table>", "<repo_name>a<file_sep>b", "<h1>Title</h1>\n\n\n<p>x</p>", "<<|im_end|>>",
        "The quick brown fox jumps over the lazy dog.", "Supercalifragilisticexpialidocious", "antidisestablishmentarianism",
        "iPhone15ProMax", "camelCaseAndPascalCase", "snake_case_name", "SCREAMING_SNAKE", "kebab-case", "XMLHttpRequest",
        "e.g. i.e. U.S.A. Ph.D.", "Mr. O'Neill's", "rock'n'roll", "'tis", "y'all'd've", "x^2 + y_1 = \\frac{a}{b}",
        "$\\sum_{i=0}^{n} i^2$", "# Title\n\n- item\n  - nested\n\n```rust\nlet x = 1;\n```\n", "| a | b |\n|---|---|\n",
        "1. one\n2. two\n", "Line one.\r\nLine two.\r\n", "trailing spaces   \nnext", "   leading", "(a) [b] {c}", "!!! ???",
    ]


def random_texts(count):
    """Texts that nobody would write, of characters that are treated apart."""
    chance = random.Random(20240607)
    pools = ["abcXYZ", "0123456789", " ", "  \t", "\n\r", "'\"`", ".,;:!?", "+-*/=<>|~^$", "éüßñ", "你好中文字", "кириллица", "😀🎉👍", "١٢٣", "\u0301\u0308"]
    return ["".join(chance.choice(chance.choice(pools)) for _ in range(chance.randint(3, 60))) for _ in range(count)]


def broken_texts():
    return [b"abc\xe4\xb8", b"\xff", b"a\x80b", b"\xf0\x9f\x98", b"ok \x80\x81 ok", b"\xe4\xbd\xa0\xe5", b"\x9f\x98\x80"]


def texts():
    written = written_texts()
    assert len(set(written)) == len(written)
    return [*written, *random_texts(200 - len(written) - len(broken_texts())), *broken_texts()]


class Vocabulary:
    """One vocabulary in llama.cpp, through its C interface."""

    def __init__(self, path, pre=None, **flags):
        """`flags`: keys of `tokenizer.ggml` that are to be overridden."""
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        overrides = (llama_cpp.llama_model_kv_override * (2 + len(flags)))()
        # An entry without a key ends the list.
        for entry, (name, flag) in zip(overrides, flags.items()):
            entry.tag = OVERRIDE_BOOL
            entry.key = b"tokenizer.ggml." + name.encode()
            entry.value.val_bool = flag
        if pre is not None:
            entry = overrides[len(flags)]
            entry.tag = OVERRIDE_STRING
            entry.key = b"tokenizer.ggml.pre"
            entry.value.val_str = pre.encode()
        params.kv_overrides = overrides
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path} with pre-tokenizer {pre}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def tokens(self, text, special=True, add=False):
        data = text if isinstance(text, bytes) else text.encode()
        room = (llama_cpp.llama_token * (len(data) * 2 + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), room, len(room), add, special)
        return list(room[:count])

    def piece(self, token):
        room = ctypes.create_string_buffer(1024)
        count = llama_cpp.llama_token_to_piece(self.vocab, token, room, len(room), 0, True)
        return room.raw[:count]


def pieces_hash(vocabulary):
    value = 0xCBF29CE484222325
    for token in range(vocabulary.size):
        for byte in vocabulary.piece(token) + b"\xff":
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def last(vocab):
    """The token that is added behind a text."""
    is_wordpiece = llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_WPM
    return llama_cpp.llama_vocab_sep(vocab) if is_wordpiece else llama_cpp.llama_vocab_eos(vocab)


def make(name, path, inputs):
    own = Vocabulary(path)
    tokens = [own.tokens(text) for text in inputs]
    plain = [own.tokens(text, special=False) for text in inputs]
    result = {
        "bos": llama_cpp.llama_vocab_bos(own.vocab),
        "eos": last(own.vocab),
        "add_bos": llama_cpp.llama_vocab_get_add_bos(own.vocab),
        "eog": [token for token in range(own.size) if llama_cpp.llama_vocab_is_eog(own.vocab, token)],
        "pieces": pieces_hash(own),
        "tokens": tokens,
        "plain": [None if a == b else b for a, b in zip(tokens, plain)],
        "added": [own.tokens(text, add=True) for text in inputs[:10]],
    }
    if llama_cpp.llama_vocab_type(own.vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM:
        prefixed = Vocabulary(path, add_space_prefix=True)
        result["prefixed"] = [prefixed.tokens(text) for text in inputs[:100]]
    if llama_cpp.llama_vocab_type(own.vocab) == llama_cpp.LLAMA_VOCAB_TYPE_UGM:
        kept = Vocabulary(path, remove_extra_whitespaces=False)
        result["kept"] = [kept.tokens(text) for text in inputs]
        bare = Vocabulary(path, remove_extra_whitespaces=False, add_space_prefix=False)
        result["bare"] = [bare.tokens(text) for text in inputs]
    write(f"{name}.tokens.json", result)


def alphabet():
    """GPT-2's character for every byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_pairs(path):
    """A vocabulary of 256 + 65536 tokens: token 256 + 256 a + b is the bytes a, b."""
    letters = alphabet()
    pairs = [(a, b) for a in letters for b in letters]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(letters + [a + b for a, b in pairs])
    writer.add_token_merges([f"{a} {b}" for a, b in pairs])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_cuts(inputs):
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pairs.gguf"
        write_pairs(path)
        for pre in PRE:
            vocabulary = Vocabulary(path, pre)
            lengths = lambda text: "".join("1" if token < 256 else "2" for token in vocabulary.tokens(text))
            found = {str(i): lengths(text) for i, text in enumerate(inputs)}
            rows[pre] = {i: cuts for i, cuts in found.items() if pre == "gpt-2" or cuts != rows["gpt-2"][i]}
    write("pre.json", rows)


def write(name, value):
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(item, separators=(',', ':'))}" for key, item in value.items())
    (HERE / name).write_text("{\n" + lines + "\n}\n")


def main():
    if len(sys.argv) < 2 or any("=" not in argument for argument in sys.argv[1:]):
        sys.exit(__doc__)
    inputs = texts()
    shown = [{"hex": text.hex()} if isinstance(text, bytes) else text for text in inputs]
    (HERE / "texts.json").write_text("[\n" + ",\n".join(json.dumps(text) for text in shown) + "\n]\n")
    make_cuts(inputs)
    for argument in sys.argv[1:]:
        name, path = argument.split("=", 1)
        make(name, path, inputs)


if __name__ == "__main__":
    main()
