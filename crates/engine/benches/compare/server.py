"""`caravan serve` on a free port with one model, and clients that ask it at the same time, over HTTP, streaming."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from children import Failure, die_with_parent

START_SECONDS = 60
# Of one answer: the slowest takes a minute on a busy machine.
ANSWER_SECONDS = 600
STOP_SECONDS = 60
MODEL = "bench"


class Server:
    """A running server. Use it in a `with`: it and its store end with it."""

    def __init__(self, binary, gguf, settings):
        """`settings`: threads, clients and context, and the folder for what is temporary."""
        self.folder = tempfile.mkdtemp(prefix="server-", dir=settings["folder"])
        self.log = pathlib.Path(settings["folder"], "server.log")
        self.context = settings["context"]
        self.process = None
        try:
            self.start(binary, settings)
            self.create(binary, gguf)
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, binary, settings):
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA_", "CARAVAN_"))},
            "OLLAMA_NUM_PARALLEL": str(settings["clients"]),
            "OLLAMA_MODELS": self.folder,
        }
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command += ["--threads", str(settings["threads"])]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(r" ready .*\blisten=\"?([0-9.:]+)", self.log.read_text(errors="replace"))
            if found:
                self.address = found.group(1)
                return
            time.sleep(0.05)
        raise Failure(f"caravan serve did not get ready: {self.log.read_text(errors='replace')[-2000:]}")

    def create(self, binary, gguf):
        modelfile = pathlib.Path(self.folder, "Modelfile")
        modelfile.write_text(f"FROM {gguf}\n", encoding="utf-8")
        done = subprocess.run(
            [binary, "create", MODEL, "-f", modelfile],
            env={**os.environ, "OLLAMA_HOST": self.address},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise Failure(f"caravan create failed: {done.stderr.strip()[-2000:]}")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def serve(self, prompts, prompt_tokens, tokens):
        """All prompts at once: the same figures as the reference's `serve`."""
        answers, errors = [], []
        barrier = threading.Barrier(len(prompts))

        def client(at, prompt):
            try:
                barrier.wait()
                answers.append(self.generate(prompt, tokens, at))
            except Exception as error:  # A thread's error is the caller's to tell.
                errors.append(error)

        threads = [threading.Thread(target=client, args=pair) for pair in enumerate(prompts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise Failure(f"{errors[0]}; the server's log is {self.log}") from errors[0]
        wrong = {answer["prompt_tokens"] for answer in answers} - {prompt_tokens}
        if wrong:
            raise Failure(f"prompts of {prompt_tokens} tokens were counted as {sorted(wrong)}")
        start = min(answer["start"] for answer in answers)
        return {
            "tokens": sum(answer["tokens"] for answer in answers),
            "seconds": max(answer["end"] for answer in answers) - start,
            "first_token_seconds": [answer["first"] - start for answer in answers],
        }

    def generate(self, prompt, tokens, seed):
        # What Ollama samples with when nobody says otherwise; the reference's side does the same.
        options = {"num_predict": tokens, "num_ctx": self.context, "seed": seed, "temperature": 0.8}
        options |= {"top_k": 40, "top_p": 0.9, "repeat_penalty": 1.0}
        body = {"model": MODEL, "prompt": prompt, "raw": True, "stream": True, "options": options}
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_SECONDS)
        start, first = time.perf_counter(), None
        try:
            connection.request("POST", "/api/generate", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise Failure(f"/api/generate answered {response.status}: {response.read(500).decode(errors='replace')}")
            for line in response:
                first = first or time.perf_counter()
                answer = json.loads(line)
                if "error" in answer:
                    raise Failure(f"/api/generate: {answer['error']}")
                if answer.get("done"):
                    counts = {"tokens": answer["eval_count"], "prompt_tokens": answer["prompt_eval_count"]}
                    return {"start": start, "first": first, "end": time.perf_counter(), **counts}
            raise Failure("/api/generate ended without its last line")
        finally:
            connection.close()
