"""The official `openai` client against /v1.

Usage: openai_client.py SCRIPTED    (OLLAMA_HOST and SCRIPTED: see ollama_client.py)
"""

import os
import sys

import openai

MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def keys(scripted: str) -> None:
    ask = lambda client: client.chat.completions.create(model="m", messages=[{"role": "user", "content": "[[say yes]]"}])
    for base, key in [(scripted, "sesame"), (f"{scripted}/k/sesame", "unused")]:
        assert ask(openai.OpenAI(base_url=f"{base}/v1", api_key=key)).choices[0].message.content == "yes"
    try:
        ask(openai.OpenAI(base_url=f"{scripted}/v1", api_key="wrong"))
    except openai.AuthenticationError as error:
        assert error.status_code == 401 and error.code == "invalid_api_key", error
    else:
        raise AssertionError("a wrong key was answered")


def main(scripted: str) -> None:
    client = openai.OpenAI(base_url=os.environ["OLLAMA_HOST"] + "/v1", api_key="unused")

    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.usage.completion_tokens > 0 and answer.choices[0].finish_reason in ("stop", "length")

    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]

    assert f"{MODEL}:latest" in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL

    vectors = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert len(vectors.data) == 2 and len(vectors.data[0].embedding) > 100

    try:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    except openai.NotFoundError as error:
        assert "model 'no-such-model' not found" in str(error)
    else:
        raise AssertionError("an unknown model was answered")

    keys(scripted)


main(sys.argv[1])
