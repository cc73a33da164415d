"""LangChain's `langchain-ollama`: chat, streams, tools, structured answers, embeddings.

Usage: langchain_client.py SCRIPTED    (OLLAMA_HOST and SCRIPTED: see ollama_client.py)
"""

import asyncio
import os
import sys
from urllib.parse import urlsplit

import ollama
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel, ConfigDict, Field

BASE = os.environ["OLLAMA_HOST"]
QUESTION = "What is the capital of France? Answer in one sentence."


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=20)
    is_capital: bool


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def chat() -> None:
    model = ChatOllama(model="smollm2", base_url=BASE, temperature=0, num_predict=24, validate_model_on_init=True)
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert "Paris" in answer.content, answer
    usage = answer.usage_metadata
    assert usage["input_tokens"] > 0 and usage["output_tokens"] > 0
    assert answer.response_metadata["model"] == "smollm2" and answer.response_metadata["done_reason"] in ("stop", "length")
    chunks = list(model.stream([SystemMessage("Be brief."), HumanMessage(QUESTION)]))
    assert len(chunks) > 2 and "".join(chunk.content for chunk in chunks) == answer.content
    assert asyncio.run(model.ainvoke(QUESTION)).content == model.invoke(QUESTION).content
    assert [len(text.content) > 0 for text in model.batch(["one", "two", "three"])] == [True] * 3

    shaped = ChatOllama(model="smollm2", base_url=BASE, num_predict=64).with_structured_output(City, method="json_schema")
    assert isinstance(shaped.invoke(QUESTION), City)
    assert "Paris" in OllamaLLM(model="smollm2", base_url=BASE, temperature=0, num_predict=24).invoke(QUESTION)


def tools(scripted: str) -> None:
    # A user and a password in the address become a basic authorization.
    base = f"http://anybody:sesame@{urlsplit(scripted).netloc}"
    model = ChatOllama(model="toolful", base_url=base).bind_tools([weather])
    say = '[[say <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>]]'
    messages = [HumanMessage(say)]
    answer = model.invoke(messages)
    (call,) = answer.tool_calls
    assert call["name"] == "weather" and call["args"] == {"city": "Oslo"} and call["id"], answer
    messages += [answer, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert model.invoke(messages + [HumanMessage("[[say It is sunny.]]")]).content == "It is sunny."
    chunks = list(model.stream(messages[:1]))
    assert [name["name"] for chunk in chunks for name in chunk.tool_calls] == ["weather"]

    shaped = ChatOllama(model="toolful", base_url=base).with_structured_output(City, method="function_calling")
    say = '[[say <tool_call>{"name": "City", "arguments": {"name": "Paris", "is_capital": true}}</tool_call>]]'
    assert shaped.invoke(say) == City(name="Paris", is_capital=True)

    thinker = ChatOllama(model="thinker", base_url=base, reasoning=True)
    thought = thinker.invoke("[[say <think>Hm.</think>Yes.]]")
    assert (thought.additional_kwargs["reasoning_content"], thought.content) == ("Hm.", "Yes.")

    keyed = ChatOllama(model="m", base_url=f"{scripted}/k/sesame", validate_model_on_init=False)
    assert keyed.invoke("[[say yes]]").content == "yes"


def vectors() -> None:
    embeddings = OllamaEmbeddings(model="minilm", base_url=BASE, validate_model_on_init=True)
    one, two = embeddings.embed_documents(["one", "two"])
    assert len(one) == 384 and one != two and embeddings.embed_query("one") == one
    similarity = lambda a, b: sum(x * y for x, y in zip(a, b))
    cat, kitten, car = embeddings.embed_documents(["A cat sits there.", "A kitten sits there.", "The car needs fuel."])
    assert similarity(cat, kitten) > similarity(cat, car)


def errors(scripted: str) -> None:
    def refused(call, kind, text: str) -> None:
        try:
            call()
        except kind as error:
            assert text in str(error), error
        else:
            raise AssertionError(f"it was answered, not refused with {text!r}")

    missing = lambda: ChatOllama(model="no-such-model", base_url=BASE, validate_model_on_init=True)
    refused(missing, ValueError, "`no-such-model` not found in Ollama")
    locked = lambda: ChatOllama(model="m", base_url=scripted, validate_model_on_init=True)
    refused(locked, ValueError, "Received an error from the Ollama API")
    refused(lambda: ChatOllama(model="no-such-model", base_url=BASE).invoke("Hi"), ollama.ResponseError, "not found")
    thinks = ChatOllama(model="smollm2", base_url=BASE, reasoning=True)
    refused(lambda: thinks.invoke("Hi"), ollama.ResponseError, "does not support thinking")
    tooled = ChatOllama(model="smollm2", base_url=BASE).bind_tools([weather])
    refused(lambda: tooled.invoke("Hi"), ollama.ResponseError, "does not support tools")


def main(scripted: str) -> None:
    chat()
    tools(scripted)
    vectors()
    errors(scripted)


main(sys.argv[1])
