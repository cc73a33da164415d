"""The official `ollama` client, used as its README shows: every call that a beginner makes, and what goes wrong.

Usage: ollama_client.py PATH_OF_A_GGUF SCRIPTED    (OLLAMA_HOST names a server with the model `smollm2`; SCRIPTED is the
address of one that wants the key `sesame`, runs the scripted engine, and has the models `toolful` and `thinker`)
"""

import asyncio
import hashlib
import os
import sys
from datetime import datetime
from pathlib import Path

import ollama
from pydantic import BaseModel, ConfigDict, Field

MODEL = "smollm2"
GREEDY = {"temperature": 0, "num_predict": 24}
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def refused(call, *arguments, **keywords) -> ollama.ResponseError:
    """The error that a call ends with."""
    try:
        answer = call(*arguments, **keywords)
        # A stream is only asked for when it is read.
        list(answer) if keywords.get("stream") else None
    except ollama.ResponseError as error:
        return error
    raise AssertionError(f"{call.__name__} was answered: {answer}")


def chat_and_generate(client: ollama.Client) -> None:
    answer = client.chat(model=MODEL, messages=QUESTION, options=GREEDY)
    assert "Paris" in answer.message.content, answer
    assert answer.done and answer.eval_count > 0 and answer.prompt_eval_count > 0

    pieces = list(client.chat(model=MODEL, messages=QUESTION, options=GREEDY, stream=True))
    assert len(pieces) > 2 and pieces[-1].done and not pieces[0].done
    assert "".join(piece.message.content for piece in pieces) == answer.message.content

    generated = client.generate(model=MODEL, prompt="1 2 3 4", raw=True, options=GREEDY)
    assert "5" in generated.response, generated
    pieces = list(client.generate(model=MODEL, prompt="1 2 3 4", raw=True, options=GREEDY, stream=True))
    assert "".join(piece.response for piece in pieces) == generated.response
    first = client.generate(model=MODEL, prompt="My name is Ada.", options=GREEDY)
    again = client.generate(model=MODEL, prompt="What is my name?", context=first.context, options=GREEDY)
    assert again.prompt_eval_count > len(first.context)

    probable = client.chat(model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=2, options={"num_predict": 2})
    assert len(probable.logprobs) == 2 and len(probable.logprobs[0].top_logprobs) == 2

    class City(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str = Field(max_length=20)
        is_capital: bool

    # What a caller would write: the schema of a type, and the answer read by it.
    shaped = client.chat(model=MODEL, messages=QUESTION, format=City.model_json_schema(), options={"num_predict": 64})
    assert isinstance(City.model_validate_json(shaped.message.content), City), shaped


def tools_and_thinking(scripted: str) -> None:
    client = ollama.Client(host=scripted, headers={"Authorization": "Bearer sesame"})

    def weather(city: str, days: int = 1) -> str:
        """The weather of a city.

        Args:
            city: Where.
            days: For how long.
        """
        return f"sunny in {city} for {days} days"

    say = '[[say <tool_call>{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}</tool_call>]]'
    messages = [{"role": "user", "content": say}]
    answer = client.chat(model="toolful", messages=messages, tools=[weather])
    (call,) = answer.message.tool_calls
    assert call.function.name == "weather" and call.function.arguments == {"city": "Oslo", "days": 3}, answer
    messages += [answer.message, {"role": "tool", "content": weather(**call.function.arguments), "tool_name": "weather"}]
    messages += [{"role": "user", "content": "[[say It is sunny.]]"}]
    assert client.chat(model="toolful", messages=messages, tools=[weather]).message.content == "It is sunny."

    thought = client.chat(model="thinker", messages=[{"role": "user", "content": "[[say <think>Hm.</think>Yes.]]"}], think=True)
    assert (thought.message.thinking, thought.message.content) == ("Hm.", "Yes.")
    pieces = list(client.generate(model="thinker", prompt="[[say <think>Hm.</think>Yes.]]", think=True, stream=True))
    assert "".join(piece.thinking or "" for piece in pieces) == "Hm."

    # A key in the address, as for clients that know no headers; one in the environment; none; a wrong one.
    assert ollama.Client(host=f"{scripted}/k/sesame").generate(model="m", prompt="[[say yes]]").response == "yes"
    assert ollama.Client(host=f"{scripted}/k/sesame").list().models
    os.environ["OLLAMA_API_KEY"] = "sesame"
    assert ollama.Client(host=scripted).generate(model="m", prompt="[[say yes]]").response == "yes"
    del os.environ["OLLAMA_API_KEY"]
    error = refused(ollama.Client(host=scripted).list)
    assert error.status_code == 401 and error.error.startswith("unauthorized: "), error
    assert refused(ollama.Client(host=f"{scripted}/k/wrong").list).status_code == 401


def vectors(client: ollama.Client) -> None:
    embedded = client.embed(model=MODEL, input=["one", "two"])
    assert len(embedded.embeddings) == 2
    assert abs(sum(x * x for x in embedded.embeddings[0]) - 1) < 1e-3
    assert len(client.embeddings(model=MODEL, prompt="one").embedding) == len(embedded.embeddings[0])
    assert len(client.embed(model="minilm", input="one", dimensions=64).embeddings[0]) == 64
    assert refused(client.embed, model="minilm", input="x " * 2000, truncate=False).status_code == 400


def models(client: ollama.Client, path: Path) -> None:
    assert f"{MODEL}:latest" in [model.model for model in client.list().models]
    shown = client.show(MODEL)
    assert shown.details.family == "llama" and "completion" in shown.capabilities
    assert shown.modelinfo["llama.context_length"] == 8192 and shown.modified_at
    running = client.ps().models
    assert f"{MODEL}:latest" in [model.model for model in running]
    assert all(isinstance(model.expires_at, datetime) and model.expires_at.tzinfo for model in running)

    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert client.create_blob(path) == digest
    steps = [step.status for step in client.create(model="made", files={path.name: digest}, stream=True)]
    assert steps[-1] == "success", steps
    parameters = {"temperature": 0, "stop": ["###"]}
    made = client.create(model="pirate", from_="made", system="You are a pirate.", parameters=parameters, license="MIT")
    assert made.status == "success" and "pirate" in client.show("pirate").modelfile

    before = len(client.list().models)
    client.copy("made", "me/made:v2")
    assert len(client.list().models) == before + 1
    for name in ("me/made:v2", "made", "pirate"):
        assert client.delete(name).status == "success"
    names = [model.model for model in client.list().models]
    assert f"{MODEL}:latest" in names and not {"me/made:v2", "made:latest", "pirate:latest"} & set(names), names

    assert client.generate(model=MODEL, keep_alive=0).done_reason == "unload"


def errors(client: ollama.Client) -> None:
    for stream in (False, True):
        error = refused(client.chat, model="no-such-model", messages=QUESTION, stream=stream)
        assert error.status_code == 404 and error.error == "model 'no-such-model' not found", error
    for call, arguments, status, text in [
        (client.chat, {"model": MODEL, "messages": QUESTION, "think": True}, 400, '"smollm2" does not support thinking'),
        (client.generate, {"model": MODEL, "prompt": "a", "suffix": "b"}, 400, "does not support insert"),
        (client.generate, {"model": "minilm", "prompt": "a"}, 400, '"minilm" does not support generate'),
        (client.generate, {"model": MODEL, "prompt": "a", "images": [b"no picture"]}, 400, "vision"),
        (client.show, {"model": "no-such-model"}, 404, "not found"),
        (client.delete, {"model": "no-such-model"}, 404, "not found"),
        (client.copy, {"source": "no-such-model", "destination": "b"}, 404, "not found"),
        (client.create, {"model": "a b", "from_": MODEL}, 400, "invalid model name"),
    ]:
        error = refused(call, **arguments)
        assert error.status_code == status and text in error.error, error
    try:
        ollama.Client(host="http://127.0.0.1:1").list()
    except ConnectionError as error:
        assert "Failed to connect" in str(error)
    else:
        raise AssertionError("nobody listens there")


async def at_once() -> None:
    client = ollama.AsyncClient()
    ask = lambda number: client.chat(model=MODEL, messages=QUESTION, options=GREEDY | {"seed": number})
    answers = await asyncio.gather(*(ask(number) for number in range(6)))
    # Greedy answers do not depend on what runs beside them.
    assert len({answer.message.content for answer in answers}) == 1
    text = ""
    async for piece in await client.generate(model=MODEL, prompt="1 2 3", raw=True, options=GREEDY, stream=True):
        text += piece.response
    assert "4" in text, text


def main(path: Path, scripted: str) -> None:
    client = ollama.Client()
    chat_and_generate(client)
    asyncio.run(at_once())
    tools_and_thinking(scripted)
    vectors(client)
    models(client, path)
    errors(client)


main(Path(sys.argv[1]), sys.argv[2])
