"""What is measured: the models, the work, and the goals (figures of ours against llama.cpp's)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    name: str
    file: str
    # The type that the generator writes; empty for a real model.
    kind: str = ""


@dataclass(frozen=True)
class Row:
    name: str
    model: str
    # decode, prefill, server, memory or load.
    work: str
    # What both sides are asked; the load rows ask nothing.
    command: str = ""
    # Ours by theirs at least. Memory: bytes by the file's at most; load: seconds per GB at most.
    goal: float = 0
    # Of the memory bandwidth at least.
    bandwidth_goal: float = 0


MODELS = [
    Model("1b-q4_0", "1b-v1-Q4_0.gguf", "Q4_0"),
    Model("1b-q4_k_m", "1b-v1-Q4_K_M.gguf", "Q4_K_M"),
    Model("1b-q8_0", "1b-v1-Q8_0.gguf", "Q8_0"),
    Model("1b-f16", "1b-v1-F16.gguf", "F16"),
    Model("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    Model("gemma3", "gemma-3-270m-q4_k_m.gguf"),
]

DECODE_GOALS = {"smollm2": 1.5, "gemma3": 1.5}
PREFILL_GOALS = {"1b-q4_0": 2.0, "1b-q4_k_m": 2.0, "1b-q8_0": 3.0, "1b-f16": 1.5, "smollm2": 2.0, "gemma3": 1.3}
DECODE_GOAL, BANDWIDTH_GOAL = 1.15, 0.85
SERVER_GOAL, FIRST_TOKEN_GOAL = 2.3, 1 / 3
MEMORY_GOAL, LOAD_GOAL = 1.15, 1.0
# Clients, tokens of a prompt, tokens of an answer.
SERVER = (8, 128, 64)


def rows(quick):
    """In the order of the table."""
    tokens, batched, prompt = (24, 8, 128) if quick else (128, 32, 512)
    found = []
    for model in MODELS:
        name = model.name
        bandwidth = BANDWIDTH_GOAL if model.kind else 0
        goal = DECODE_GOALS.get(name, DECODE_GOAL)
        found.append(Row(f"decode-{name}", name, "decode", f"decode 1 {tokens} 1", goal, bandwidth))
    for model in MODELS:
        goal = PREFILL_GOALS[model.name]
        found.append(Row(f"prefill-{model.name}", model.name, "prefill", f"prefill {prompt}", goal))
    for sequences, goal in ((8, 3.0), (32, 2.5)):
        name = f"decode{sequences}-1b-q4_k_m"
        found.append(Row(name, "1b-q4_k_m", "decode", f"decode {sequences} {batched} 16", goal))
    found.append(Row("server-1b-q4_k_m", "1b-q4_k_m", "server", "serve {} {} {}".format(*SERVER), SERVER_GOAL))
    found += [Row(f"memory-{model.name}", model.name, "memory", goal=MEMORY_GOAL) for model in MODELS]
    found += [Row(f"load-{model.name}", model.name, "load", goal=LOAD_GOAL) for model in MODELS]
    return found


def select(all_rows, only):
    """Those that `only` names, separated by commas; a name that ends with * stands for all that begin so."""
    if not only:
        return all_rows
    names = [name.strip() for name in only.split(",")]

    def matches(row, name):
        return row.name == name or (name.endswith("*") and row.name.startswith(name[:-1]))

    for name in names:
        if not any(matches(row, name) for row in all_rows):
            raise SystemExit(f"bench: ONLY names no row {name!r}; rows are: {' '.join(row.name for row in all_rows)}")
    return [row for row in all_rows if any(matches(row, name) for name in names)]
