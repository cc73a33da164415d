#!/usr/bin/env python3
"""Writes the GGUF file of a BERT embedder from its safetensors, with nothing but the standard library.

    bert_to_gguf.py FOLDER TARGET.gguf

FOLDER has config.json, model.safetensors (F32) and vocab.txt, as sentence-transformers publishes them. Tensors stay
F32 and keep their bytes, so the file is the same wherever it is made.
"""

import json
import pathlib
import struct
import sys

ALIGNMENT = 32
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
NORMAL, CONTROL = 1, 3
MEAN = 1
BLOCK = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
WHOLE = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}


def renamed(name):
    """The tensor's name in a GGUF file; None for what embedders do not use."""
    stem, kind = name.rsplit(".", 1)
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    if not stem.startswith("encoder.layer."):
        return None
    number, part = stem.removeprefix("encoder.layer.").split(".", 1)
    return f"blk.{number}.{BLOCK[part]}.{kind}"


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def metadata(config, vocab):
    """Keys with the type and the bytes of their values."""
    u32 = lambda value: (U32, struct.pack("<I", value))
    control = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    # What begins a word is marked here, what continues one is marked there.
    shown = [word if word in control else word[2:] if word.startswith("##") else "\u2581" + word for word in vocab]
    kinds = [CONTROL if word in control else NORMAL for word in vocab]
    return {
        "general.architecture": (STRING, text("bert")),
        "general.name": (STRING, text("all-MiniLM-L6-v2")),
        "bert.block_count": u32(config["num_hidden_layers"]),
        "bert.context_length": u32(config["max_position_embeddings"]),
        "bert.embedding_length": u32(config["hidden_size"]),
        "bert.feed_forward_length": u32(config["intermediate_size"]),
        "bert.attention.head_count": u32(config["num_attention_heads"]),
        "bert.attention.layer_norm_epsilon": (F32, struct.pack("<f", config["layer_norm_eps"])),
        "bert.attention.causal": (BOOL, b"\0"),
        "bert.pooling_type": u32(MEAN),
        "tokenizer.ggml.model": (STRING, text("bert")),
        "tokenizer.ggml.token_type_count": u32(config["type_vocab_size"]),
        "tokenizer.ggml.tokens": (ARRAY, array(STRING, [text(word) for word in shown])),
        "tokenizer.ggml.token_type": (ARRAY, array(I32, [struct.pack("<i", kind) for kind in kinds])),
        "tokenizer.ggml.unknown_token_id": u32(vocab.index("[UNK]")),
        "tokenizer.ggml.bos_token_id": u32(vocab.index("[CLS]")),
        "tokenizer.ggml.seperator_token_id": u32(vocab.index("[SEP]")),
        "tokenizer.ggml.padding_token_id": u32(vocab.index("[PAD]")),
        "tokenizer.ggml.mask_token_id": u32(vocab.index("[MASK]")),
    }


def main(folder, target):
    config = json.loads((folder / "config.json").read_text())
    vocab = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[: config["vocab_size"]]
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    found = json.loads(data[8 : 8 + length])
    tensors = {renamed(name): entry for name, entry in found.items() if name != "__metadata__" and renamed(name)}
    assert all(entry["dtype"] == "F32" for entry in tensors.values()), "only F32 tensors are known"
    keys = metadata(config, vocab)
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    head += [text(key) + struct.pack("<I", kind) + value for key, (kind, value) in keys.items()]
    body, offset = [], 0
    for name, entry in sorted(tensors.items()):
        start, end = (8 + length + at for at in entry["data_offsets"])
        shape = entry["shape"][::-1]
        head.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset))
        padding = -(end - start) % ALIGNMENT
        body += [data[start:end], b"\0" * padding]
        offset += end - start + padding
    head = b"".join(head)
    target.write_bytes(head + b"\0" * (-len(head) % ALIGNMENT) + b"".join(body))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
