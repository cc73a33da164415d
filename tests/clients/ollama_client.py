"""The official `ollama` client, used as its README shows: every call that a beginner makes.

Usage: ollama_client.py PATH_OF_A_GGUF    (OLLAMA_HOST names the server; the model `smollm2` is there)
"""

import hashlib
import sys
from pathlib import Path

import ollama

MODEL = "smollm2"
GREEDY = {"temperature": 0, "num_predict": 24}
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def main(path: Path) -> None:
    client = ollama.Client()

    answer = client.chat(model=MODEL, messages=QUESTION, options=GREEDY)
    assert "Paris" in answer.message.content, answer
    assert answer.done and answer.eval_count > 0 and answer.prompt_eval_count > 0

    pieces = list(client.chat(model=MODEL, messages=QUESTION, options=GREEDY, stream=True))
    assert len(pieces) > 2 and pieces[-1].done and not pieces[0].done
    assert "".join(piece.message.content for piece in pieces) == answer.message.content

    generated = client.generate(model=MODEL, prompt="1 2 3 4", raw=True, options=GREEDY)
    assert "5" in generated.response, generated

    embedded = client.embed(model=MODEL, input=["one", "two"])
    assert len(embedded.embeddings) == 2
    assert abs(sum(x * x for x in embedded.embeddings[0]) - 1) < 1e-3
    assert len(client.embeddings(model=MODEL, prompt="one").embedding) == len(embedded.embeddings[0])

    assert f"{MODEL}:latest" in [model.model for model in client.list().models]
    shown = client.show(MODEL)
    assert shown.details.family == "llama" and "completion" in shown.capabilities
    running = client.ps().models
    assert [model.model for model in running] == [f"{MODEL}:latest"] and running[0].expires_at

    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert client.create_blob(path) == digest
    steps = [step.status for step in client.create(model="made", files={path.name: digest}, stream=True)]
    assert steps[-1] == "success", steps
    made = client.create(model="pirate", from_="made", system="You are a pirate.", parameters={"temperature": 0})
    assert made.status == "success" and "pirate" in client.show("pirate").modelfile

    client.copy("made", "me/made:v2")
    assert "me/made:v2" in [model.model for model in client.list().models]
    for name in ("me/made:v2", "made", "pirate"):
        assert client.delete(name).status == "success"
    assert [model.model for model in client.list().models] == [f"{MODEL}:latest"]

    try:
        client.chat(model="no-such-model", messages=QUESTION)
    except ollama.ResponseError as error:
        assert error.status_code == 404 and error.error == "model 'no-such-model' not found", error
    else:
        raise AssertionError("an unknown model was answered")


main(Path(sys.argv[1]))
