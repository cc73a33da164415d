#!/usr/bin/env python3
"""Makes reranker.gguf, a reranker of XLM-RoBERTa's kind so small that it can lie here, and prints what llama.cpp makes of it.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    python make_reranker.py

Its weights are seeded noise, so its opinions are nobody's, but they are always the same: the relevance scores that
tests/scenarios/15-rerank.yaml expects are the ones that this prints. As with most real ones, no key says that it is a reranker.
"""

import math
import pathlib

import gguf
import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
WIDTH, HEADS, CONTEXT = 32, 2, 64
WORDS = ["the", "a", "red", "camel", "water", "well", "is", "tall", "tower", "bread"]
QUERY = "how tall is the tower"
DOCUMENTS = ["The tower is 330 metres tall.", "Bread needs yeast.", "a red camel at the well", "", "塔", "the water " * 40]


def vocabulary():
    control, unknown, normal = gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN, gguf.TokenType.NORMAL
    rows = [("<s>", 0.0, control), ("<pad>", 0.0, control), ("</s>", 0.0, control), ("<unk>", 0.0, unknown)]
    rows += [("\u2581", -3.0, normal)]
    rows += [(character, -4.0, normal) for character in "abcdefghijklmnopqrstuvwxyzTB.0123456789"]
    rows += [("\u2581" + word, -5.0, normal) for word in WORDS]
    return rows


def tensors(tokens):
    random = np.random.default_rng(20240615)

    def noise(*shape, spread):
        return random.uniform(-spread, spread, shape).astype(np.float32)

    def linear(name, rows, cols=WIDTH, spread=2.5):
        yield f"{name}.weight", noise(rows, cols, spread=spread / math.sqrt(cols))
        yield f"{name}.bias", noise(rows, spread=0.4)

    def norm(name):
        yield f"{name}.weight", 1.0 + noise(WIDTH, spread=0.3)
        yield f"{name}.bias", noise(WIDTH, spread=0.4)

    yield "token_embd.weight", noise(tokens, WIDTH, spread=0.8)
    yield "position_embd.weight", noise(CONTEXT, WIDTH, spread=0.3)
    yield "token_types.weight", noise(1, WIDTH, spread=0.3)
    yield from norm("token_embd_norm")
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"]:
        yield from linear(f"blk.0.{part}", WIDTH)
    yield from norm("blk.0.attn_output_norm")
    yield from norm("blk.0.layer_output_norm")
    yield from linear("cls", WIDTH)
    # Opinions that are no doubts.
    yield from linear("cls.output", 1, spread=15.0)


def write(path):
    rows = vocabulary()
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("A small reranker")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([text for text, _, _ in rows])
    writer.add_token_scores([score for _, score, _ in rows])
    writer.add_token_types([kind for _, _, kind in rows])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_token_type_count(1)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_sep_token_id(2)
    writer.add_pad_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(True)
    for name, values in tensors(len(rows)):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokenize(vocab, text):
    data = text.encode()
    room = (llama_cpp.llama_token * (len(data) + 8))()
    return list(room[: llama_cpp.llama_tokenize(vocab, data, len(data), room, len(room), False, False)])


def score(model, query, document):
    """The probability, and how many tokens it took. What does not fit is cut off the document."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    tokens = [0, *tokenize(vocab, query), 2, 2, *tokenize(vocab, document)][: CONTEXT - 1] + [2]
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
    params.embeddings = True
    params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_RANK
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for at, token in enumerate(tokens):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, True
        batch.seq_id[at][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    logit = llama_cpp.llama_get_embeddings_seq(context, 0)[0]
    return 1 / (1 + math.exp(-logit)), len(tokens)


if __name__ == "__main__":
    path = HERE / "reranker.gguf"
    write(path)
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    scores = [(*score(model, QUERY, document), document) for document in DOCUMENTS]
    for relevance, count, document in scores:
        print(f"{relevance:.5f} {count:3} tokens {document[:40]!r}")
    print(sum(count for _, count, _ in scores[:3]), "tokens in the first three")
