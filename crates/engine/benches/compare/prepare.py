"""What a measurement needs before it can begin: our programs, llama.cpp for Python, the models."""

import json
import os
import pathlib
import subprocess
import sys

from children import Failure

ROOT = pathlib.Path(__file__).resolve().parents[4]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()
FOLDER = TARGET / "bench"
# The same as that of `make reference`.
VENV = ROOT / "target" / "reference-venv"
PACKAGES = ["llama-cpp-python==0.3.36"]
READ_BYTES = 1 << 24


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def build():
    """Paths of the bench and of the server; one build, or two would compile most dependencies twice."""
    say("building (minutes, when nothing is built yet)")
    command = ["cargo", "build", "--release", "--locked", "-p", "cli", "--bin", "caravan", "-p", "engine"]
    command += ["--bench", "speed", "--message-format", "json-render-diagnostics"]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"build: {error}") from error
    found = {}
    for message in map(json.loads, done.stdout.splitlines()):
        if message.get("executable"):
            found[message["target"]["name"]] = message["executable"]
    return found["speed"], found["caravan"]


def reference_python():
    """An interpreter that has llama.cpp: the one that CARAVAN_BENCH_PYTHON names, or one made for it."""
    given = os.environ.get("CARAVAN_BENCH_PYTHON")
    python = pathlib.Path(given) if given else VENV / "bin" / "python"
    if has_llama(python):
        return python
    if given:
        raise Failure(f"CARAVAN_BENCH_PYTHON={given} cannot import llama_cpp; install it there: {' '.join(PACKAGES)}")
    say(f"installing {' '.join(PACKAGES)} into {VENV}: it compiles llama.cpp, which takes some 10 minutes")
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(pip, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        needed = "a C++ compiler, CMake (pip brings it) and python3-venv"
        raise Failure(f"install {' '.join(PACKAGES)}: {error}; it needs {needed}") from error
    if not has_llama(python):
        raise Failure(f"{python} cannot import llama_cpp although it was installed; remove {VENV} and try again")
    return python


def has_llama(python):
    try:
        return subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode == 0
    except OSError:
        return False


def models(wanted, speed):
    """Paths by name; writes the synthetic ones that are missing."""
    real = pathlib.Path(os.environ.get("CARAVAN_TEST_MODELS") or ROOT / "target" / "models")
    FOLDER.mkdir(parents=True, exist_ok=True)
    kinds = [model.kind for model in wanted if model.kind]
    if any(not (FOLDER / model.file).is_file() for model in wanted if model.kind):
        say(f"writing random models ({', '.join(kinds)}) to {FOLDER}")
        # Its vocabulary is the one that the shape is measured with.
        tokenizer = existing(real / "SmolLM2-135M-Instruct.Q4_1.gguf")
        command = [speed, "generate", "--tokenizer", tokenizer, "--folder", FOLDER, "--types", ",".join(kinds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"write the models (4.6 GB for all): {done.stderr.strip()}")
    return {model.name: existing((FOLDER if model.kind else real) / model.file) for model in wanted}


def existing(path):
    if not path.is_file():
        raise Failure(f"{path} is missing; `make models` fetches the real models, or name their folder in CARAVAN_TEST_MODELS")
    return path


def cache(path):
    """Reads the file, so that no load waits for the disk."""
    with open(path, "rb", buffering=0) as file:
        while file.read(READ_BYTES):
            pass
