"""LlamaIndex' `llama-index-llms-ollama` and `llama-index-embeddings-ollama`.

Usage: llama_index_client.py SCRIPTED    (OLLAMA_HOST and SCRIPTED: see ollama_client.py)
"""

import asyncio
import functools
import os
import sys

import ollama
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel, ConfigDict, Field

BASE = os.environ["OLLAMA_HOST"]
QUESTION = "What is the capital of France? Answer in one sentence."
SHORT = {"num_predict": 24}
# Its own patience of 30 s is too little for a busy machine.
LLM = functools.partial(Ollama, request_timeout=600)


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=20)
    is_capital: bool


def chat() -> None:
    # Without a context window it asks the server how long the model's is, and wants all of it.
    model = LLM(model="smollm2", base_url=BASE, temperature=0, additional_kwargs=SHORT)
    assert model.metadata.context_window == 8192
    # With one, the same replica serves it.
    model = LLM(
        model="smollm2", base_url=BASE, temperature=0, context_window=3900, additional_kwargs=SHORT
    )
    answer = model.chat([ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=QUESTION)])
    assert "Paris" in answer.message.content, answer
    assert answer.raw["usage"]["completion_tokens"] > 0
    whole = model.complete(QUESTION).text
    assert "Paris" in whole
    pieces = list(model.stream_complete(QUESTION))
    assert len(pieces) > 2 and pieces[-1].text == whole
    assert asyncio.run(model.acomplete(QUESTION)).text == whole

    in_json = LLM(model="smollm2", base_url=BASE, json_mode=True, context_window=3900, additional_kwargs={"num_predict": 8})
    assert in_json.complete("Tell me of France, in JSON.").text.lstrip().startswith("{")
    long = LLM(model="smollm2", base_url=BASE, context_window=3900, additional_kwargs={"num_predict": 64})
    shaped = long.as_structured_llm(City).chat([ChatMessage(role="user", content=QUESTION)])
    assert isinstance(shaped.raw, City), shaped


def tools(scripted: str) -> None:
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    headers = {"Authorization": "Bearer sesame"}
    model = LLM(model="toolful", base_url=scripted, context_window=3900, headers=headers)
    say = '[[say <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>]]'
    answer = model.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg=say)
    (call,) = model.get_tool_calls_from_response(answer)
    assert call.tool_name == "weather" and call.tool_kwargs == {"city": "Oslo"}, answer

    thinker = LLM(model="thinker", base_url=scripted, context_window=3900, headers=headers, thinking=True)
    thought = thinker.chat([ChatMessage(role="user", content="[[say <think>Hm.</think>Yes.]]")])
    assert thought.message.content == "Yes.", thought
    keyed = LLM(model="m", base_url=f"{scripted}/k/sesame", context_window=3900)
    assert keyed.complete("[[say yes]]").text == "yes"


def vectors() -> None:
    embedder = OllamaEmbedding(model_name="minilm", base_url=BASE)
    one, two = embedder.get_text_embedding_batch(["one", "two"])
    assert len(one) == 384 and one != two and embedder.get_query_embedding("one") == one
    assert asyncio.run(embedder.aget_text_embedding("one")) == one


def errors(scripted: str) -> None:
    def refused(call, status: int, text: str) -> None:
        try:
            call()
        except ollama.ResponseError as error:
            assert error.status_code == status and text in error.error, error
        else:
            raise AssertionError(f"it was answered, not refused with {text!r}")

    refused(lambda: LLM(model="nope", base_url=BASE, context_window=3900).complete("Hi"), 404, "model 'nope' not found")
    refused(lambda: LLM(model="nope", base_url=BASE).metadata, 404, "not found")
    refused(lambda: LLM(model="m", base_url=scripted, context_window=3900).complete("Hi"), 401, "unauthorized")
    refused(lambda: OllamaEmbedding(model_name="nope", base_url=BASE).get_text_embedding("a"), 404, "not found")
    thinks = LLM(model="smollm2", base_url=BASE, context_window=3900, thinking=True)
    refused(lambda: thinks.complete("Hi"), 400, "does not support thinking")


def main(scripted: str) -> None:
    chat()
    tools(scripted)
    vectors()
    errors(scripted)


main(sys.argv[1])
