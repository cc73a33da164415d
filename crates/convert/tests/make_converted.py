#!/usr/bin/env python3
"""Makes checkpoints/golden.json and models/quantized.json: what llama.cpp makes of files that this crate wrote.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    cargo run -p convert --example made FOLDER
    python make_converted.py FOLDER

checkpoints/golden.json, for the converted small checkpoints, F32, in one batch on the CPU with flash attention off and an
f16 KV cache:
`tokens`, `positions`, `logits`   per decoder the logits after each of `positions`
`adapted`                         the same with the adapter that was made for each
`pieces`, `vectors`               for the encoder the tokens and the pooled row
`texts`, `ids`                    per model what llama.cpp's tokenizer makes of each text, control tokens parsed
models/quantized.json, for a real model quantized to each type:
`tokens`, `models`   per type and position the likeliest tokens and the natural logarithms of their probabilities
`losses`             per type the mean divergence of llama.cpp's own file of that type from the source
"""

import ctypes
import json
import pathlib
import sys

import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
ENGINE = HERE.parent.parent / "engine" / "tests"
sys.path += [str(ENGINE / "reference"), str(ENGINE / "architectures")]

import make_golden as architectures  # noqa: E402
from make_reference import Reference  # noqa: E402
from make_tokens import Vocabulary  # noqa: E402

VOCAB, WIDTH, LENGTH, POSITIONS = 264, 32, 24, [0, 7, 23]
TOKENS = [(at * 37 + at * at * 5 + 11) % VOCAB for at in range(LENGTH)]
PIECES = [2, 7, 19, 33, 8, 3]
TEXTS = [
    "", "the", "the in the inn", "Then he said: the end", "in\n\nthe  1234 inn's", "<|begin|>the<tool>in<|end|>", "caravans GOES on",
    "the caravan going", "ünï 日本 🦙", "x",
]
ENTRY, EVALUATED, LIKELIEST = "english", 128, 8
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}


def small(folder, adapters):
    golden = {"tokens": TOKENS, "positions": POSITIONS, "pieces": PIECES, "texts": TEXTS, "logits": {}, "adapted": {}, "vectors": {}, "ids": {}}
    for path in sorted(folder.glob("*.gguf")):
        vocabulary = Vocabulary(path)
        golden["ids"][path.stem] = [vocabulary.tokens(text) for text in TEXTS]
        if path.stem == "bert":
            row = llama_cpp.llama_get_embeddings_seq(architectures.run(path, PIECES, True), 0)[:WIDTH]
            golden["vectors"][path.stem] = [round(value, 5) for value in row]
        else:
            golden["logits"][path.stem] = logits(architectures.run(path, TOKENS, False))
            if (adapters / path.name).exists():
                golden["adapted"][path.stem] = logits(architectures.run(path, TOKENS, False, adapter=adapters / path.name))
    (HERE / "checkpoints" / "golden.json").write_text(text(golden))


def logits(context):
    rows = ctypes.cast(llama_cpp.llama_get_logits(context), ctypes.POINTER(ctypes.c_float * (VOCAB * LENGTH)))
    rows = np.array(rows.contents, dtype=np.float32).reshape(LENGTH, VOCAB)
    return [[round(float(value), 4) for value in row] for row in rows[POSITIONS]]


def quantized(folder, half):
    entries = json.loads((ENGINE / "reference" / "smollm2.json").read_text())["entries"]
    tokens = next(entry["text_tokens"] for entry in entries if entry["name"] == ENTRY)[:EVALUATED]
    golden = {"tokens": tokens, "losses": {}, "models": {}}
    source = logarithms(Reference(half).evaluate(tokens, 0))
    for path in sorted(folder.glob("*.gguf")):
        ours, theirs = (logarithms(Reference(file).evaluate(tokens, 0)) for file in (path, own(path.stem, half)))
        loss = lambda rows: round(float((np.exp(source) * (source - rows)).sum(axis=1).mean()), 5)
        print(f"{path.stem}: ours loses {loss(ours)}, llama.cpp's {loss(theirs)}")
        golden["losses"][path.stem] = loss(theirs)
        golden["models"][path.stem] = [likeliest(row) for row in ours]
    (HERE / "models" / "quantized.json").write_text(text(golden))


def own(name, half):
    """The file that llama.cpp makes of the same source."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = FILE_TYPES[name], 2
    made = half.parent / "own.gguf"
    if llama_cpp.llama_model_quantize(str(half).encode(), str(made).encode(), ctypes.byref(params)) != 0:
        sys.exit(f"llama.cpp does not make {name}")
    return made


def logarithms(rows):
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def likeliest(row):
    return [[int(token), round(float(row[token]), 4)] for token in np.argsort(-row, kind="stable")[:LIKELIEST]]


def text(golden):
    """A line for each model."""
    item = lambda value: json.dumps(value, separators=(",", ":"))
    lines = lambda value: "{\n" + ",\n".join(f"{item(key)}:{item(one)}" for key, one in value.items()) + "\n}"
    parts = (f"{item(key)}: {lines(value) if isinstance(value, dict) else item(value)}" for key, value in golden.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    small(pathlib.Path(sys.argv[1]) / "small", pathlib.Path(sys.argv[1]) / "adapters")
    quantized(pathlib.Path(sys.argv[1]) / "quantized", pathlib.Path(sys.argv[1]) / "half.gguf")
