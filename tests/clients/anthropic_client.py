"""The official `anthropic` client against /v1/messages.

Usage: anthropic_client.py SCRIPTED    (OLLAMA_HOST and SCRIPTED: see ollama_client.py)
"""

import os
import sys

import anthropic

MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
WEATHER = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '[[say Let me see.<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>]]'


def talk(client: anthropic.Anthropic) -> None:
    # Anthropic's own models have no temperature any more, and its client no word for it.
    request = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, "extra_body": {"temperature": 0}}
    answer = client.messages.create(**request)
    assert answer.id.startswith("msg_") and answer.type == "message" and answer.role == "assistant"
    assert answer.content[0].type == "text" and "Paris" in answer.content[0].text, answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert answer.stop_reason in ("end_turn", "max_tokens")

    with client.messages.stream(**request) as stream:
        assert "".join(stream.text_stream) == answer.content[0].text
    whole = stream.get_final_message()
    assert whole.content[0].text == answer.content[0].text and whole.stop_reason == answer.stop_reason
    assert whole.usage.output_tokens == answer.usage.output_tokens

    cut = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=1)
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 1

    for wrong, error, text in [
        ({"model": "no-such-model"}, anthropic.NotFoundError, "model 'no-such-model' not found"),
        ({"messages": []}, anthropic.BadRequestError, "messages is required"),
        ({"tools": [WEATHER]}, anthropic.BadRequestError, "does not support tools"),
    ]:
        try:
            client.messages.create(**{"model": MODEL, "messages": QUESTION, "max_tokens": 1, **wrong})
        except error as refused:
            assert text in refused.message and refused.body["request_id"].startswith("req_"), refused
        else:
            raise AssertionError(f"{wrong} was answered")


def use_tools(client: anthropic.Anthropic) -> None:
    turns = [{"role": "user", "content": CALL}]
    request = {"model": "toolful", "max_tokens": 2048, "tools": [WEATHER]}
    answer = client.messages.create(messages=turns, **request)
    assert [block.type for block in answer.content] == ["text", "tool_use"], answer
    assert answer.content[0].text == "Let me see." and answer.stop_reason == "tool_use"
    call = answer.content[1]
    assert call.name == "weather" and call.input == {"city": "Oslo"} and call.id

    with client.messages.stream(messages=turns, **request) as stream:
        whole = stream.get_final_message()
    assert [block.type for block in whole.content] == ["text", "tool_use"], whole
    assert whole.content[1].input == {"city": "Oslo"} and whole.stop_reason == "tool_use"

    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    more = {"type": "text", "text": "[[say It rains.]]"}
    turns = [{"role": "user", "content": "How is the weather?"}, {"role": "assistant", "content": answer.content[1:]}]
    last = client.messages.create(messages=[*turns, {"role": "user", "content": [result, more]}], **request)
    assert last.content[-1].text == "It rains." and last.stop_reason == "end_turn", last


def think(client: anthropic.Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    turns = [{"role": "user", "content": "[[say <think>hm</think>yes]]"}]
    request = {"model": "thinker", "max_tokens": 2048, "messages": turns, "thinking": thinking}
    answer = client.messages.create(**request)
    assert [block.type for block in answer.content] == ["thinking", "text"], answer
    assert answer.content[0].thinking == "hm" and answer.content[1].text == "yes"
    with client.messages.stream(**request) as stream:
        whole = stream.get_final_message()
    assert whole.content[0].thinking == "hm" and whole.content[1].text == "yes", whole


def main(scripted: str) -> None:
    talk(anthropic.Anthropic(base_url=os.environ["OLLAMA_HOST"], api_key="unused", max_retries=0))
    client = anthropic.Anthropic(base_url=scripted, api_key="sesame", max_retries=0)
    use_tools(client)
    think(client)
    try:
        think(anthropic.Anthropic(base_url=scripted, api_key="wrong", max_retries=0))
    except anthropic.AuthenticationError as error:
        assert error.body["error"]["type"] == "authentication_error", error
    else:
        raise AssertionError("a wrong key was answered")


main(sys.argv[1])
