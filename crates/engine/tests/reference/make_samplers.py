#!/usr/bin/env python3
"""Makes the vectors that `src/sampler/tests.rs` compares the sampler's filters with.

    pip install llama-cpp-python==0.3.36
    python make_samplers.py

It writes samplers.json beside itself: `logits`, some made-up rows; and `cases`, each with the row's number, the tokens
before (`history`), the options, and `kept`: ids and probabilities that llama.cpp's chain (penalties, top_k, typical_p,
top_p, min_p, temperature) leaves, best first.
"""

import ctypes
import json
import pathlib
import random

import llama_cpp

HERE = pathlib.Path(__file__).parent
OFF = {
    "repeat_last_n": 64, "repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
    "top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0,
}


def rows():
    """A flat row, a peaked one, and one in between."""
    chance = random.Random(11)
    return [[round(chance.gauss(0, spread), 3) for _ in range(150)] for spread in (0.5, 6.0, 2.5)]


def cases():
    history = [3, 17, 17, 42, 42, 42, 99, 3, 120, 7]
    single = [
        {"top_k": 1}, {"top_k": 7}, {"top_k": 149}, {"top_k": 1000}, {"top_p": 0.05}, {"top_p": 0.5}, {"top_p": 0.9},
        {"top_p": 0.0}, {"min_p": 0.02}, {"min_p": 0.3}, {"min_p": 1.0}, {"typical_p": 0.2}, {"typical_p": 0.7},
        {"temperature": 0.3}, {"temperature": 1.7},
    ]
    penalties = [
        {"repeat_penalty": 1.3}, {"repeat_penalty": 0.7}, {"frequency_penalty": 0.8}, {"presence_penalty": 1.5},
        {"repeat_penalty": 1.1, "frequency_penalty": -0.4, "presence_penalty": 0.2, "repeat_last_n": 4},
    ]
    chains = [
        {"top_k": 40, "top_p": 0.9, "temperature": 0.8},
        {"top_k": 20, "top_p": 0.8, "min_p": 0.05, "temperature": 0.6},
        {"top_k": 30, "typical_p": 0.6, "top_p": 0.7, "temperature": 1.2},
        {"typical_p": 0.9, "top_p": 0.9, "min_p": 0.1, "temperature": 0.9},
        {"repeat_penalty": 1.2, "presence_penalty": 0.5, "top_k": 25, "top_p": 0.95, "min_p": 0.02, "temperature": 0.7},
    ]
    for row in range(3):
        yield from ({"row": row, "history": [], **OFF, **options} for options in single)
        yield from ({"row": row, "history": history, **OFF, "top_k": 30, **options} for options in penalties)
        yield from ({"row": row, "history": history, **OFF, **options} for options in chains)


def kept(logits, case):
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in [
        llama_cpp.llama_sampler_init_penalties(
            len(logits), case["repeat_last_n"], case["repeat_penalty"], case["frequency_penalty"],
            case["presence_penalty"],
        ),
        llama_cpp.llama_sampler_init_top_k(case["top_k"]),
        llama_cpp.llama_sampler_init_typical(case["typical_p"], 1),
        llama_cpp.llama_sampler_init_top_p(case["top_p"], 1),
        llama_cpp.llama_sampler_init_min_p(case["min_p"], 1),
        llama_cpp.llama_sampler_init_temp(case["temperature"]),
        llama_cpp.llama_sampler_init_dist(1),
    ]:
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    for token in case["history"]:
        llama_cpp.llama_sampler_accept(chain, token)
    data = (llama_cpp.llama_token_data * len(logits))()
    for token, logit in enumerate(logits):
        data[token].id, data[token].logit = token, logit
    array = llama_cpp.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
    found = [(array.data[i].id, round(array.data[i].p, 6)) for i in range(array.size)]
    llama_cpp.llama_sampler_free(chain)
    return sorted(found, key=lambda item: (-item[1], item[0]))


def main():
    logits = rows()
    lines = [json.dumps({**case, "kept": kept(logits[case["row"]], case)}, separators=(",", ":")) for case in cases()]
    text = '{"logits": ' + json.dumps(logits) + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n"
    (HERE / "samplers.json").write_text(text)


if __name__ == "__main__":
    main()
