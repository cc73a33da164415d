#!/usr/bin/env python3
"""Makes the reference vectors that `tests/reference.rs` compares the engine with.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    python make_reference.py NAME=MODEL.gguf [NAME=MODEL.gguf ...]

For each model it writes two files beside itself:

NAME.json   what was asked and what llama.cpp answered: `settings`, and per entry of prompts.json
            `prompt_tokens`   ids of the prompt (special tokens parsed, BOS as the model wants it)
            `greedy`          up to 64 ids by argmax, ended early by an end-of-generation token (which is included)
            `greedy_gaps`     per id of `greedy`, the gap between the two highest logits it was taken from
            `greedy_margins`  per id of `greedy`, by how much llama.cpp prefers it to every other token at least, over its
                              ways to compute the same: as generated, all in one batch, one by one from the start, and
                              with the weights expanded to f32 and an f32 KV cache; negative where one would differ
            `text_tokens`     ids of the text that is evaluated teacher-forced
NAME.bin    per entry one record per id of `text_tokens`, then one per id of `prompt_tokens` + `greedy`: the next-token
            distribution after that id, 392 bytes, little-endian:
            f32       gap between the two highest logits
            f32       natural log of the probability mass outside the 64 likeliest ids
            u32[64]   the 64 likeliest ids, likeliest first (the lower id first on ties)
            f16[64]   natural log of their probabilities

Settings, so that the figures can be made again: n_ctx 2048, n_batch = n_ubatch = 1024, two threads, flash attention off,
f16 KV cache, no GPU. `greedy`: the prompt in one batch, then one token at a time; each run of records in one batch.

How near can an engine come? llama.cpp quantizes activations to 8 bits, which turns the last bit of a sum into noise: on
these texts it agrees with *itself*, one token at a time against one batch, on 96.5 % (SmolLM2) and 93.2 % (gemma) of the
likeliest ids with a mean KL of 0.0033 and 0.0063; on its own greedy text on 98.9 and 99.3 %, 0.0014 and 0.0028. With
itself on f32 weights, which is exact, it agrees on 96.7 and 95.5 %. Almost all of what differs are near-ties, which a
text by people is full of. That is also why the margins exist: the gap between two logits moves by more than 0.1 from one
way of computing to the next.
"""

import ctypes
import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
CONTEXT, BATCH, THREADS, GREEDY_TOKENS, BINS = 2048, 1024, 2, 64, 64


class Reference:
    """One model in llama.cpp, through its C interface."""

    def __init__(self, path, cache_type=llama_cpp.GGML_TYPE_F16):
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = CONTEXT
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = THREADS
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = cache_type
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def tokenize(self, text):
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), room, len(room), True, True)
        return list(room[:count])

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def evaluate(self, tokens, position):
        """Logits after each of `tokens`, the first of which stands at `position`."""
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i] = token
            self.batch.pos[i] = position + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = True
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama_decode failed")
        rows = llama_cpp.llama_get_logits(self.context)
        rows = ctypes.cast(rows, ctypes.POINTER(ctypes.c_float * (self.size * len(tokens)))).contents
        return np.frombuffer(rows, dtype=np.float32).reshape(len(tokens), self.size).astype(np.float64)

    def greedy(self, prompt):
        self.forget()
        row, position = self.evaluate(prompt, 0)[-1], len(prompt)
        tokens, gaps = [], []
        while len(tokens) < GREEDY_TOKENS:
            first, second = np.argsort(-row, kind="stable")[:2]
            tokens.append(int(first))
            gaps.append(round(float(row[first] - row[second]), 4))
            if llama_cpp.llama_vocab_is_eog(self.vocab, int(first)):
                break
            row, position = self.evaluate([int(first)], position)[-1], position + 1
        return tokens, gaps

    def margins(self, prompt, tokens, at_once):
        """By how much each of `tokens` is preferred to the next best, given the ones before it."""
        self.forget()
        inputs = prompt + tokens[:-1]
        if at_once:
            rows = self.evaluate(inputs, 0)
        else:
            rows = np.concatenate([self.evaluate([token], position) for position, token in enumerate(inputs)])
        found = []
        for row, token in zip(rows[len(prompt) - 1 :], tokens):
            others = np.delete(row, token)
            found.append(float(row[token] - others.max()))
        return found

    def records(self, tokens):
        self.forget()
        return b"".join(record(row) for row in self.evaluate(tokens, 0))


def record(row):
    order = np.argsort(-row, kind="stable")[:BINS]
    log_probabilities = row - row.max() - np.log(np.exp(row - row.max()).sum())
    rest = np.exp(np.delete(log_probabilities, order)).sum()
    head = np.array([row[order[0]] - row[order[1]], np.log(max(rest, 1e-30))], dtype="<f4")
    return head.tobytes() + order.astype("<u4").tobytes() + log_probabilities[order].astype("<f2").tobytes()


def expand(source, target):
    """Writes the same model with f32 weights."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        is_float = tensor.tensor_type == gguf.GGMLQuantizationType.F32
        values = tensor.data if is_float else gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, path, folder):
    reference = Reference(path)
    expand(path, folder / "expanded.gguf")
    exact = Reference(folder / "expanded.gguf", llama_cpp.GGML_TYPE_F32)
    result = {"model": pathlib.Path(path).name}
    result["settings"] = {
        "llama_cpp_python": llama_cpp.__version__, "n_ctx": CONTEXT, "n_batch": BATCH, "n_threads": THREADS,
        "flash_attn": "off", "type_kv": "f16",
    }
    records, entries = [], []
    for entry in json.loads((HERE / "prompts.json").read_text())["entries"]:
        prompt, text = reference.tokenize(entry["prompt"]), reference.tokenize(entry["text"])
        greedy, gaps = reference.greedy(prompt)
        ways = [
            gaps, reference.margins(prompt, greedy, True), reference.margins(prompt, greedy, False),
            exact.margins(prompt, greedy, True),
        ]
        records += [reference.records(text), reference.records(prompt + greedy)]
        entries.append(json.dumps({
            "name": entry["name"], "prompt_tokens": prompt, "greedy": greedy, "greedy_gaps": gaps,
            "greedy_margins": [round(min(margins), 4) for margins in zip(*ways)], "text_tokens": text,
        }))
    (HERE / f"{name}.json").write_text(json.dumps(result)[:-1] + ', "entries": [\n' + ",\n".join(entries) + "\n]}\n")
    (HERE / f"{name}.bin").write_bytes(b"".join(records))


if __name__ == "__main__":
    if len(sys.argv) < 2 or any("=" not in argument for argument in sys.argv[1:]):
        sys.exit(__doc__)
    for argument in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            make(*argument.split("=", 1), pathlib.Path(folder))
