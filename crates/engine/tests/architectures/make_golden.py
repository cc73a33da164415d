#!/usr/bin/env python3
"""Makes golden.json: what llama.cpp computes with the small models of synthetic.rs.

    pip install llama-cpp-python==0.3.36
    cargo run -p engine --example synthetic FOLDER
    python make_golden.py FOLDER

Per model, after `tokens` run as one batch on the CPU with flash attention off and an f16 KV cache: in `models` for each of
`positions` the logits of every 12th token, and in `best` for every position the token with the highest logit.
In `ranks` for each of the rerankers the score of the same: a logit, or where yes stands against no a probability.
In `embeddings` for each of the embedders and rerankers the pooled row of the first tokens, as many as each of `counts`. The weights are F32, so nothing is quantized on the way and another
engine must agree to the rounding of the cache.
"""

import ctypes
import json
import pathlib
import sys

import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
VOCAB, LENGTH, STRIDE = 288, 48, 12
POSITIONS = [0, 7, 20, 47]
WIDTH, COUNTS = 64, [1, 20, 48]
EMBEDDERS = ["bert", "bert-cls", "nomic-bert", "qwen3-last"]
RERANKERS = {
    "bert-rank": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "bert-label": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "bert-dense": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "qwen3-rank": llama_cpp.LLAMA_POOLING_TYPE_LAST,
}
TOKENS = [3 + (at * 37 + at * at * 5 + 11) % (VOCAB - 3) for at in range(LENGTH)]

# llama.cpp reads these keys for a few architectures only, so it is told.
TOLD = {"llama-yarn": {"yarn_beta_fast": 4.0, "yarn_beta_slow": 0.5}}


def run(path, tokens, embeds, pooling=llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED, adapter=None):
    """The context after `tokens`, with an adapter if one is named."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 64
    params.embeddings = embeds
    params.pooling_type = pooling
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    for name, value in TOLD.get(path.stem, {}).items():
        setattr(params, name, value)
    context = llama_cpp.llama_init_from_model(model, params)
    if adapter:
        loaded = llama_cpp.llama_adapter_lora_init(model, str(adapter).encode())
        if not loaded or llama_cpp.llama_set_adapters_lora(context, (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded), 1, (ctypes.c_float * 1)(1.0)) != 0:
            sys.exit(f"llama.cpp cannot use {adapter}")
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for at, token in enumerate(tokens):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, True
        batch.seq_id[at][0] = 0
    if llama_cpp.llama_decode(context, batch) != 0:
        sys.exit(f"llama_decode failed for {path}")
    return context


def logits(path):
    context = run(path, TOKENS, False)
    rows = ctypes.cast(llama_cpp.llama_get_logits(context), ctypes.POINTER(ctypes.c_float * (VOCAB * LENGTH)))
    return np.array(rows.contents, dtype=np.float32).reshape(LENGTH, VOCAB)


def embeddings(path, width, *pooling):
    rows = []
    for count in COUNTS:
        found = llama_cpp.llama_get_embeddings_seq(run(path, TOKENS[:count], True, *pooling), 0)
        rows.append([round(found[at], 5) for at in range(width)])
    return rows


def main(folder):
    golden = {"stride": STRIDE, "tokens": TOKENS, "positions": POSITIONS, "counts": COUNTS, "embeddings": {}, "ranks": {}, "best": {}, "models": {}}
    for path in sorted(pathlib.Path(folder).glob("*.gguf")):
        if path.stem in EMBEDDERS:
            golden["embeddings"][path.stem] = embeddings(path, WIDTH)
            continue
        if path.stem in RERANKERS:
            golden["embeddings"][path.stem] = embeddings(path, WIDTH, RERANKERS[path.stem])
            ranks = embeddings(path, 1, llama_cpp.LLAMA_POOLING_TYPE_RANK)
            golden["ranks"][path.stem] = [row[0] for row in ranks]
            continue
        rows = logits(path)
        golden["best"][path.stem] = rows.argmax(axis=1).tolist()
        golden["models"][path.stem] = [[round(float(value), 4) for value in row] for row in rows[POSITIONS, ::STRIDE]]
    models = ",\n".join(f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in golden.pop("models").items())
    (HERE / "golden.json").write_text(json.dumps(golden)[:-1] + f', "models": {{\n{models}\n}}}}\n')


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
