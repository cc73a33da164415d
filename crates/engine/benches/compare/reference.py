"""The reference's side of `make bench-engine`: llama.cpp through its C interface, asked in the same lines as `speed session`.

    reference.py MODEL.gguf THREADS

It does what llama-bench and llama-batched-bench do: flash attention, f16 KV cache, batches of 512, random tokens, a clock
around llama_decode and llama_synchronize alone. `serve` does what llama-server does with requests that come together: its
batches of 2048 take one token of each sequence that decodes and as many prompt tokens as fit.
"""

import ctypes
import json
import random
import re
import sys
import time

import llama_cpp as llama

BATCH, SERVER_BATCH, MICRO_BATCH = 512, 2048, 512
MAX_TRIES = 100
# Of ggml's log levels.
WARNING, ERROR = 3, 4

messages = []


@llama.llama_log_callback
def keep_message(level, text, _data):
    if level in (WARNING, ERROR):
        messages.append(text.decode(errors="replace").strip())
        del messages[:-5]


class Failure(Exception):
    """What llama.cpp could not do, with the last that it said."""

    def __init__(self, what):
        super().__init__(f"{what}: {' / '.join(messages)}")


class Context:
    """A context of its own for each shape of work, as the tools of llama.cpp have."""

    def __init__(self, reference, sequences, positions, batch):
        params = llama.llama_context_default_params()
        # Each sequence gets its share, rounded as the context wants it.
        params.n_ctx = sequences * (positions + -positions % 256)
        params.n_seq_max = sequences
        params.n_batch, params.n_ubatch = batch, MICRO_BATCH
        params.n_threads = params.n_threads_batch = reference.threads
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = llama.llama_init_from_model(reference.model, params)
        if not self.context:
            raise Failure("make a context")
        self.size = batch
        self.batch = llama.llama_batch_init(batch, 0, 1)

    def forget(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def decode(self, rows):
        """Runs rows of token, position, sequence and whether its scores are wanted."""
        for at, (token, position, sequence, wanted) in enumerate(rows):
            self.batch.token[at] = token
            self.batch.pos[at] = position
            self.batch.n_seq_id[at] = 1
            self.batch.seq_id[at][0] = sequence
            self.batch.logits[at] = wanted
        self.batch.n_tokens = len(rows)
        if llama.llama_decode(self.context, self.batch) != 0:
            raise Failure("llama_decode")
        llama.llama_synchronize(self.context)

    def close(self):
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.context)


class Reference:
    def __init__(self, path, threads):
        self.threads = threads
        self.random = random.Random(1)
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise Failure(f"load {path}")
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.vocab_size = llama.llama_vocab_n_tokens(self.vocab)
        self.contexts = {}

    def context(self, sequences, positions, batch=BATCH):
        shape = (sequences, positions, batch)
        if shape not in self.contexts:
            # One at a time: each has a KV cache and buffers.
            for context in self.contexts.values():
                context.close()
            self.contexts = {shape: Context(self, *shape)}
        context = self.contexts[shape]
        context.forget()
        return context

    def token(self):
        return self.random.randrange(self.vocab_size)

    def prefill(self, tokens):
        context = self.context(1, tokens, max(BATCH, tokens))
        rows = [(self.token(), at, 0, at == tokens - 1) for at in range(tokens)]
        start = time.perf_counter()
        context.decode(rows)
        return {"tokens": tokens, "seconds": time.perf_counter() - start}

    def decode(self, sequences, tokens, prompt):
        context = self.context(sequences, prompt + tokens)
        rows = [(self.token(), at, s, at == prompt - 1) for s in range(sequences) for at in range(prompt)]
        for first in range(0, len(rows), BATCH):
            context.decode(rows[first : first + BATCH])
        seconds = 0
        for step in range(tokens):
            rows = [(self.token(), prompt + step, s, True) for s in range(sequences)]
            start = time.perf_counter()
            context.decode(rows)
            seconds += time.perf_counter() - start
        return {"tokens": sequences * tokens, "steps": tokens, "seconds": seconds}

    def serve(self, clients, prompt, tokens):
        """All clients at once; each answer is sampled as a server samples by default."""
        context = self.context(clients, prompt + tokens, SERVER_BATCH)
        sampler = self.sampler()
        pending = [[self.token() for _ in range(prompt)] for _ in range(clients)]
        position, emitted, first = [0] * clients, [0] * clients, [None] * clients
        start = time.perf_counter()
        while any(count < tokens for count in emitted):
            rows, last_row = [], {}
            # Those that decode come first, so that no prompt takes their place.
            for s in sorted(range(clients), key=lambda s: emitted[s] == 0):
                if emitted[s] == tokens:
                    continue
                some, pending[s] = pending[s][: SERVER_BATCH - len(rows)], pending[s][SERVER_BATCH - len(rows) :]
                for at, token in enumerate(some):
                    rows.append((token, position[s], s, not pending[s] and at == len(some) - 1))
                    position[s] += 1
                if some and not pending[s]:
                    last_row[s] = len(rows) - 1
            context.decode(rows)
            for s, row in last_row.items():
                pending[s] = [llama.llama_sampler_sample(sampler, context.context, row)]
                emitted[s] += 1
                first[s] = first[s] or time.perf_counter() - start
        seconds = time.perf_counter() - start
        llama.llama_sampler_free(sampler)
        return {"tokens": sum(emitted), "seconds": seconds, "first_token_seconds": first}

    def sampler(self):
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for part in (
            llama.llama_sampler_init_top_k(40),
            llama.llama_sampler_init_top_p(0.9, 1),
            llama.llama_sampler_init_temp(0.8),
            llama.llama_sampler_init_dist(1),
        ):
            llama.llama_sampler_chain_add(chain, part)
        return chain

    def prompts(self, count, tokens):
        """Texts of exactly so many tokens: words that are a token each."""
        piece = ctypes.create_string_buffer(64)
        words = []
        for token in range(self.vocab_size):
            length = llama.llama_token_to_piece(self.vocab, token, piece, len(piece), 0, False)
            text = piece.raw[: max(length, 0)].decode(errors="replace")
            if re.fullmatch(r" [a-z]{3,8}", text):
                words.append(text)
        texts = []
        for _ in range(count * MAX_TRIES):
            beginning = self.length("")
            text = "".join(self.random.choices(words, k=tokens - beginning))
            if self.length(text) == tokens:
                texts.append(text)
            if len(texts) == count:
                return {"prompts": texts}
        raise Failure(f"find {count} texts of {tokens} tokens")

    def length(self, text):
        data = text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        return llama.llama_tokenize(self.vocab, data, len(data), room, len(room), True, True)

    def answer(self, words):
        command, *numbers = words
        commands = {
            "prefill": self.prefill,
            "decode": self.decode,
            "serve": self.serve,
            "prompts": self.prompts,
        }
        if command not in commands:
            raise ValueError(f"unknown command {command}")
        return commands[command](*map(int, numbers))


def memory():
    """Bytes of this process: resident, and the most that was."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    amount = {key: int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile", "VmHWM")}
    return {"resident_bytes": amount["RssAnon"] + amount["RssFile"], "peak_bytes": amount["VmHWM"]}


def say(value):
    print(json.dumps(value), flush=True)


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    llama.llama_log_set(keep_message, ctypes.c_void_p())
    llama.llama_backend_init()
    before, start = memory(), time.perf_counter()
    reference = Reference(path, threads)
    seconds = time.perf_counter() - start
    say({"load_seconds": seconds, "before_bytes": before["resident_bytes"], "version": llama.__version__, **memory()})
    for line in sys.stdin:
        try:
            say(reference.answer(line.split()))
        except (Failure, TypeError, ValueError) as error:
            say({"error": str(error)})


main()
