#!/usr/bin/env python3
"""Makes minilm.json: the vectors that llama.cpp gives for some texts with all-MiniLM-L6-v2.

    pip install llama-cpp-python==0.3.36
    python make_embeddings.py MODEL.gguf

Per text: its tokens, and its pooled row, normalised. llama.cpp computes BERT's GELU by the tanh approximation, looked up
in half precision, so another engine agrees to about three digits; `tests/reference/embeddings.rs` also holds values that
sentence-transformers published.
"""

import json
import pathlib
import sys

import llama_cpp
import numpy as np

from make_tokens import Vocabulary

HERE = pathlib.Path(__file__).parent
WIDTH = 384
TEXTS = [
    "That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day",
    "a", "The quick brown fox jumps over the lazy dog.", "Wie spät ist es in München?", "人工智能正在改变世界。",
    "fn main() { println!(\"{}\", 42); }", "One two three four five six seven eight nine ten. " * 12,
]


def embed(context, tokens):
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for at, token in enumerate(tokens):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, True
        batch.seq_id[at][0] = 0
    if llama_cpp.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")
    row = np.array(llama_cpp.llama_get_embeddings_seq(context, 0)[:WIDTH], dtype=np.float64)
    return [round(value, 5) for value in (row / np.linalg.norm(row)).tolist()]


def main(path):
    vocabulary = Vocabulary(path)
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = 1
    params.embeddings = True
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    rows = []
    for text in TEXTS:
        tokens = vocabulary.tokens(text, add=True)
        rows.append(json.dumps({"text": text, "tokens": tokens, "row": embed(context, tokens)}, ensure_ascii=False))
    (HERE / "minilm.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
