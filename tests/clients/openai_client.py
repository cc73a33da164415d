"""The official `openai` client against /v1.

Usage: openai_client.py SCRIPTED    (OLLAMA_HOST and SCRIPTED: see ollama_client.py)
"""

import json
import os
import sys
from typing import Literal

import openai
import pydantic

MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
CALL = '[[say <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>]]'


class City(pydantic.BaseModel):
    city: Literal["Paris", "Rome"]


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


def more_of_chat(client: openai.OpenAI) -> None:
    # What LangChain and MaxKB add to a request goes into extra_body.
    extra = {"keep_alive": "5m", "num_ctx": 512, "temperature": 0, "max_tokens": 3}
    added = client.chat.completions.create(model=MODEL, messages=QUESTION, extra_body=extra)
    assert added.usage.completion_tokens == 3
    held = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City, max_tokens=64)
    assert isinstance(held.choices[0].message.parsed, City), held


def other_routes(client: openai.OpenAI) -> None:
    # The client asks for base64 and makes numbers of it, unless it is asked for numbers.
    packed = client.embeddings.create(model=MODEL, input="one").data[0].embedding
    plain = client.embeddings.create(model=MODEL, input="one", encoding_format="float").data[0].embedding
    assert len(packed) == len(plain) and abs(packed[0] - plain[0]) < 1e-6

    continued = client.completions.create(model=MODEL, prompt="Hi", max_tokens=4, temperature=0)
    assert continued.object == "text_completion" and continued.usage.completion_tokens == 4
    pieces = client.completions.create(model=MODEL, prompt="Hi", max_tokens=4, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == continued.choices[0].text

    response = client.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24)
    assert "Paris" in response.output_text and response.status == "completed", response
    with client.responses.stream(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    final = stream.get_final_response()
    assert text == final.output_text == response.output_text
    assert final.usage.output_tokens == response.usage.output_tokens
    parsed = client.responses.parse(model=MODEL, input=QUESTION, text_format=City, max_output_tokens=64)
    assert isinstance(parsed.output_parsed, City), parsed

    try:
        client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF"))
    except openai.BadRequestError as error:
        assert "does not support audio" in str(error)
    else:
        raise AssertionError("a recording was transcribed")


def use_tools(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}]
    turns = [{"role": "user", "content": CALL}]
    answer = client.chat.completions.create(model="toolful", messages=turns, tools=tools).choices[0]
    call = answer.message.tool_calls[0]
    assert answer.finish_reason == "tool_calls" and call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}, call

    with client.chat.completions.stream(model="toolful", messages=turns, tools=tools) as stream:
        whole = stream.get_final_completion().choices[0]
    assert whole.finish_reason == "tool_calls"
    assert json.loads(whole.message.tool_calls[0].function.arguments) == {"city": "Oslo"}, whole

    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    turns = [{"role": "user", "content": "Hi"}, answer.message, result, {"role": "user", "content": "[[say It rains.]]"}]
    last = client.chat.completions.create(model="toolful", messages=turns, tools=tools).choices[0]
    assert last.message.content == "It rains." and last.finish_reason == "stop", last

    tools = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}]
    with client.responses.stream(model="toolful", input=CALL, tools=tools) as stream:
        response = stream.get_final_response()
    assert [item.type for item in response.output] == ["function_call"], response
    call = response.output[0]
    assert call.name == "weather" and json.loads(call.arguments) == {"city": "Oslo"}
    items = [{"role": "user", "content": "Hi"}, *response.output]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    items += [{"role": "user", "content": "[[say It rains.]]"}]
    assert client.responses.create(model="toolful", input=items, tools=tools).output_text == "It rains."


def think(client: openai.OpenAI) -> None:
    say = "[[say <think>hm</think>yes]]"
    answer = client.chat.completions.create(model="thinker", messages=[{"role": "user", "content": say}])
    assert answer.choices[0].message.reasoning_content == "hm" and answer.choices[0].message.content == "yes"
    response = client.responses.create(model="thinker", input=say)
    assert [item.type for item in response.output] == ["reasoning", "message"] and response.output_text == "yes"


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

    more_of_chat(client)
    other_routes(client)
    keys(scripted)
    client = openai.OpenAI(base_url=f"{scripted}/v1", api_key="sesame", max_retries=0)
    use_tools(client)
    think(client)


main(sys.argv[1])
