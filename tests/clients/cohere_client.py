"""The official `cohere` client, and what MaxKB does with it.  (OLLAMA_HOST names the server; the models `reranker`, whose
scores `tests/models/make_reranker.py` prints, and `smollm2`, which is none, are there)"""

import os

import cohere

QUERY = "how tall is the tower"
DOCUMENTS = ["The tower is 330 metres tall.", "Bread needs yeast.", "a red camel at the well"]
SCORES = {0: 0.12635, 1: 0.30491, 2: 0.22556}


def maxkb(base: str) -> None:
    """MaxKB's vLLM provider, line by line: an empty list is answered without a call, and these are the fields that it reads."""
    client = cohere.ClientV2("maxkb-key", base_url=base)
    result = client.rerank(model="reranker", query=QUERY, documents=DOCUMENTS)
    read = [(one.document.get("text"), one.relevance_score) for one in result.results]
    assert [text for text, _ in read] == [DOCUMENTS[1], DOCUMENTS[2], DOCUMENTS[0]], read
    assert [score for _, score in read] == sorted((score for _, score in read), reverse=True)


def main() -> None:
    base = os.environ["OLLAMA_HOST"]
    # People paste addresses with and without a version.
    for address in (base, base + "/", base + "/v1"):
        maxkb(address)

    client = cohere.ClientV2(api_key="unused", base_url=base)
    response = client.rerank(model="reranker", query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096)
    assert [one.index for one in response.results] == [1, 2], response
    for one in response.results:
        assert abs(one.relevance_score - SCORES[one.index]) < 0.001, response
    assert response.id and response.meta.api_version.version == "2" and response.meta.tokens.input_tokens == 81

    first = cohere.Client(api_key="unused", base_url=base)
    documents = [{"text": text, "number": str(at)} for at, text in enumerate(DOCUMENTS)]
    response = first.rerank(model="reranker", query=QUERY, documents=documents, return_documents=True, rank_fields=["text"])
    assert [one.document.text for one in response.results] == [DOCUMENTS[1], DOCUMENTS[2], DOCUMENTS[0]], response

    for model, query, error, message in [
        ("nope", QUERY, cohere.NotFoundError, "model 'nope' not found"),
        ("smollm2", QUERY, cohere.BadRequestError, '"smollm2" does not support rerank'),
        ("reranker", "", cohere.BadRequestError, "`query` is required"),
    ]:
        try:
            client.rerank(model=model, query=query, documents=DOCUMENTS)
        except error as found:
            assert found.body == {"message": message}, found
        else:
            raise AssertionError(f"{model} {query!r} was answered")


main()
