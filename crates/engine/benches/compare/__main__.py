"""`make bench-engine`: our engine against llama.cpp on this machine, in turn, round by round.

    ROUNDS=5      how often; the median is what counts
    QUICK=1       one round of less work: whether all of it runs, not how fast
    ONLY=...      rows, separated by commas; decode-* are all that begin so; a wrong name lists them
    THREADS=2     of each side
    CARAVAN_BENCH_PYTHON=...  an interpreter with llama_cpp, else one is made under target/ (10 minutes)

Writes target/bench/engine.json and engine.md, prints the table. A goal that is missed is no error.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

import prepare
import rows
import table
from children import Child, Failure, Others
from prepare import FOLDER, ROOT, say
from server import Server

HERE = pathlib.Path(__file__).resolve().parent
# Of the memory reader, over all rounds of a model.
MIN_PASSES = 6
# Enough for the longest row of a sequence.
CONTEXT = 1024


class Bench:
    def __init__(self, rounds, quick, threads):
        self.rounds, self.quick, self.threads = rounds, quick, threads
        self.python = prepare.reference_python()
        self.speed, self.caravan = prepare.build()
        self.samples, self.bandwidth, self.bytes_per_token = {}, {}, {}
        self.reference_version = ""

    def run(self, selected):
        wanted = [model for model in rows.MODELS if any(row.model == model.name for row in selected)]
        paths = prepare.models(wanted, self.speed)
        for row in selected:
            keys = ("ours", "theirs", "others", "ours_first", "theirs_first")
            self.samples[row.name] = {key: [] for key in keys}
        with Child("the memory reader", [self.speed, "bandwidth", "--threads", self.threads], FOLDER / "reader.log") as reader:
            reader.read()
            for model in wanted:
                prepare.cache(paths[model.name])
                of_model = [row for row in selected if row.model == model.name]
                self.measure(model, paths[model.name], of_model, reader)

    def measure(self, model, path, of_model, reader):
        """All rows of a model, round by round."""
        asked = [row for row in of_model if row.command]
        loads = [row for row in of_model if not row.command]
        with contextlib.ExitStack() as stack:
            sides = self.start(stack, path, asked) if asked else {}
            for row in asked:
                warm_up(row, sides)
            for number in range(1, self.rounds + 1):
                passes = max(2, -(-MIN_PASSES // self.rounds))
                read = reader.ask(f"read {passes}")["gigabytes_per_second"]
                self.bandwidth.setdefault(model.name, []).extend(read)
                for row in asked:
                    # Who goes first has the warmer or the cooler machine: in turn.
                    order = ("ours", "theirs") if number % 2 else ("theirs", "ours")
                    self.sample(row, sides, order)
                    self.tell(row, number)
                if loads:
                    self.load(path, loads)
                    for row in loads:
                        self.tell(row, number)

    def start(self, stack, path, asked):
        """Both sides with the model loaded."""
        sides = {}
        if any(row.work in ("decode", "prefill") for row in asked):
            slots = max([int(row.command.split()[1]) for row in asked if row.work == "decode"], default=1)
            sides["ours"] = stack.enter_context(self.ours(path, slots, CONTEXT))
            self.bytes_per_token[asked[0].model] = sides["ours"].read()["bytes_per_token"]
        theirs = sides["theirs"] = stack.enter_context(self.theirs(path))
        self.reference_version = theirs.read()["version"]
        if any(row.work == "server" for row in asked):
            clients, prompt, _ = rows.SERVER
            settings = {"folder": FOLDER, "threads": self.threads, "clients": clients, "context": CONTEXT}
            say("starting caravan serve")
            sides["server"] = stack.enter_context(Server(self.caravan, path, settings))
            # New ones for each round, and for the warm-up: a cache of prompts is not what is measured.
            texts = theirs.ask(f"prompts {clients * (self.rounds + 1)} {prompt}")["prompts"]
            sides["prompts"] = [texts[at : at + clients] for at in range(0, len(texts), clients)]
        return sides

    def ours(self, path, slots, context):
        command = [self.speed, "session", "--model", path, "--threads", self.threads]
        return Child("our engine", command + ["--slots", slots, "--context", context], FOLDER / "ours.log")

    def theirs(self, path):
        return Child("llama.cpp", [self.python, HERE / "reference.py", path, self.threads], FOLDER / "theirs.log")

    def sample(self, row, sides, order):
        samples = self.samples[row.name]
        for side in order:
            process = sides["server"] if side == "ours" and row.work == "server" else sides[side]
            others = Others(process.process)
            measured = ask(row, side, sides)
            samples["others"].append(others.stop())
            samples[side].append(measured["tokens"] / measured["seconds"])
            if row.work == "server":
                samples[f"{side}_first"].append(measured["first_token_seconds"])

    def load(self, path, loads):
        """Fresh processes: one load each."""
        with self.ours(path, 1, 4096) as ours:
            ours = ours.read()
        with self.theirs(path) as theirs:
            theirs = theirs.read()
        self.reference_version = theirs["version"]
        size = ours["file_bytes"]
        for row in loads:
            samples = self.samples[row.name]
            if row.work == "load":
                samples["ours"].append(ours["load_seconds"] / size * 1e9)
                samples["theirs"].append(theirs["load_seconds"] / size * 1e9)
            else:
                samples["ours"].append(ours["resident_bytes"] / size)
                # Without what Python itself takes.
                samples["theirs"].append((theirs["resident_bytes"] - theirs["before_bytes"]) / size)

    def tell(self, row, number):
        samples, unit = self.samples[row.name], table.UNITS[row.work]
        figures = f"ours {samples['ours'][-1]:.2f}, llama.cpp {samples['theirs'][-1]:.2f} {unit}"
        say(f"round {number} of {self.rounds}: {row.name}: {figures}")

    def report(self, selected, seconds):
        bandwidth = {model: table.summary(passes) for model, passes in self.bandwidth.items()}
        judged = [
            table.judge(row, self.samples[row.name], bandwidth.get(row.model), self.bytes_per_token.get(row.model))
            for row in selected
        ]
        return {
            "version": 1,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
            "threads": self.threads,
            "rounds": self.rounds,
            "quick": self.quick,
            "seconds": round(seconds),
            "reference": self.reference_version,
            "bandwidth": bandwidth,
            "rows": judged,
        }


def ask(row, side, sides):
    if row.work == "server" and side == "ours":
        return sides["server"].serve(sides["prompts"].pop(), *rows.SERVER[1:])
    return sides[side].ask(row.command)


def warm_up(row, sides):
    """Once before anything counts: memory that is touched for the first time is slow."""
    say(f"warming up {row.name}")
    words = row.command.split()
    if row.work == "decode":
        words[2] = "4"
    for side in ("ours", "theirs"):
        if row.work == "server":
            ask(row, side, sides)
        else:
            sides[side].ask(" ".join(words))


def commit():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = "-dirty" if git("status", "--porcelain") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processor = names[0] if names else platform.machine()
    return {"processor": processor, "processors": os.cpu_count(), "memory_bytes": memory}


def number(name, default):
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise Failure(f"{name} must be between 1 and 1000, got {text!r}")
    return int(text)


def main():
    if not sys.platform.startswith("linux"):
        raise Failure(f"memory and processors are read from /proc, which is on Linux only, not on {sys.platform}")
    quick = bool(os.environ.get("QUICK"))
    rounds, threads = number("ROUNDS", 1 if quick else 5), number("THREADS", 2)
    selected = rows.select(rows.rows(quick), os.environ.get("ONLY", ""))
    start = time.monotonic()
    bench = Bench(rounds, quick, threads)
    bench.run(selected)
    report = bench.report(selected, time.monotonic() - start)
    text = table.markdown(report)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "engine.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "engine.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    say(f"written to {FOLDER / 'engine.json'} and {FOLDER / 'engine.md'}, {report['seconds']} s")


def end(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Both are an end like any other: what runs is stopped on the way out.
    signal.signal(signal.SIGTERM, end)
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
