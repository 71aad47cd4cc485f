"""Embeddings over HTTP: a real server that speaks OpenAI's protocol, with every fault that one has."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pgmrl.embedders import Embedder, embed_query, load_embedder
from pgmrl.embedders.openai_http import OpenAIEmbedder
from pgmrl.errors import EmbedderError, EmbedderUnavailable
from tests.letters import DIMS, vector_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "sk-very-secret-0123456789"


@dataclass
class Endpoint:
    """The server's state.

    Attributes:
        requests: the bodies of the requests so far, with their keys.
        faults: what the next answers are instead of good ones: status, headers, body; None for a good one.
        change: what becomes of a good answer.
        delay: seconds before an answer.
    """

    requests: list[tuple[dict[str, Any], str | None]] = field(default_factory=list)
    faults: list[tuple[int, dict[str, str], str] | None] = field(default_factory=list)
    change: Callable[[dict[str, Any]], Any] = lambda answer: answer
    delay: threading.Event | None = None
    url: str = ""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A server on this machine, named in the environment."""
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/embeddings"
            state.requests.append((body, self.headers.get("Authorization")))
            fault = state.faults.pop(0) if state.faults else None
            if state.delay is not None:
                state.delay.wait(10)
            if fault is None:
                texts = body["input"]
                data = [{"index": n, "embedding": vector_of(value).tolist()} for n, value in enumerate(texts)]
                if "dimensions" in body:
                    data = [item | {"embedding": item["embedding"][: body["dimensions"]]} for item in data]
                fault = (200, {}, json.dumps(state.change({"data": data[::-1]})))  # in another order, as may be
            status, headers, text = fault
            content = text.encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that did not wait for its answer."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", state.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def unit(text: str, dims: int = DIMS) -> Any:
    """What the vector of a text becomes."""
    vector = vector_of(text)[:dims]
    return vector / np.linalg.norm(vector)


def test_vectors_in_the_order_of_the_texts(endpoint: Endpoint) -> None:
    """By `index`, whatever the order of the answer; in requests of a few texts."""
    model = OpenAIEmbedder("m", batch_size=2, max_characters=10, document_prompt="doc: ", query_prompt="query: ")
    assert isinstance(model, Embedder)
    assert (model.dims, model.name) == (DIMS, "openai:m?query_prompt=query%3A+&document_prompt=doc%3A+")
    endpoint.requests.clear()
    texts = ["a", "b", "c", "much longer than the rest"]
    assert_allclose(model.embed_documents(texts), [unit(f"doc: {value}") for value in texts], rtol=1e-6)
    assert [len(body["input"]) for body, _ in endpoint.requests] == [1, 1, 1, 1]
    assert_allclose(embed_query(model, "a"), unit("query: a"), rtol=1e-6)
    assert model.embed_documents([]).shape == (0, DIMS)
    assert {key for _, key in endpoint.requests} == {f"Bearer {KEY}"}
    again = load_embedder(model.name)
    assert_allclose(again.embed_documents(texts), model.embed_documents(texts))
    assert len(endpoint.requests[-1][0]["input"]) == 2 or len(endpoint.requests) > 5


def test_options_of_the_name(endpoint: Endpoint) -> None:
    """Dimensions are the server's matter; a name with a colon is a model's."""
    model = load_embedder("openai:nomic-embed-text:v1.5?dimensions=4")
    assert (model.dims, model.name) == (4, "openai:nomic-embed-text:v1.5?dimensions=4")
    assert_allclose(model.embed_documents(["a"]), [unit("a", 4)], rtol=1e-6)
    assert endpoint.requests[-1][0] == {
        "model": "nomic-embed-text:v1.5", "input": ["a"], "encoding_format": "float", "dimensions": 4,
    }  # fmt: skip
    for spec in (
        "openai:",
        "openai:m?api_key=x",
        "openai:m?dimensions=no",
        "openai:m?dimensions=0",
        "openai:?dimensions=4",
    ):
        with pytest.raises(EmbedderError, match="expected"):
            load_embedder(spec)


@pytest.mark.parametrize("fault", [
    (429, {"Retry-After": "0"}, '{"error": {"message": "slow down"}}'),
    (429, {"Retry-After": formatdate(0)}, "slow"),
    (500, {}, "oops"),
    (503, {"Retry-After": "soon"}, ""),
    (200, {}, "<html>garbage</html>"),
    (200, {}, '{"data": []}'),
    (200, {}, '{"data": [{"index": 7, "embedding": [1]}]}'),
    (200, {}, '{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]}'),
    (200, {}, '[1, 2]'),
])  # fmt: skip
def test_a_fault_of_a_moment_is_got_over(endpoint: Endpoint, fault: tuple[int, dict[str, str], str]) -> None:
    """429, 5xx and garbage: asked again."""
    model = OpenAIEmbedder("m")
    endpoint.faults = [fault]
    assert_allclose(model.embed_documents(["a"]), [unit("a")], rtol=1e-6)


def test_a_server_that_stays_away(endpoint: Endpoint) -> None:
    """An error that says for how long, so that a worker waits; a refused key is not tried again."""
    model = OpenAIEmbedder("m", attempts=2)
    endpoint.faults = [(429, {"Retry-After": "120"}, "slow")]
    with pytest.raises(EmbedderUnavailable, match="429: slow") as caught:
        model.embed_documents(["a"])
    assert caught.value.retry_after == 120
    endpoint.faults = [(500, {}, "down")] * 2
    with pytest.raises(EmbedderUnavailable, match="500: down"):
        model.embed_documents(["a"])
    endpoint.requests.clear()
    endpoint.faults = [(401, {}, "no")]
    with pytest.raises(EmbedderUnavailable, match="401: no"):
        model.embed_documents(["a"])
    assert len(endpoint.requests) == 1
    endpoint.faults = [(302, {"Location": "http://127.0.0.1:1/"}, "")]
    with pytest.raises(EmbedderUnavailable, match="302"):
        model.embed_documents(["a"])


def test_a_server_that_takes_too_long(endpoint: Endpoint) -> None:
    """The answer is not waited for."""
    model = OpenAIEmbedder("m", timeout=0.2, attempts=1)
    endpoint.delay = threading.Event()
    with pytest.raises(EmbedderUnavailable, match="ReadTimeout"):
        model.embed_documents(["a"])
    endpoint.delay.set()


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(EmbedderUnavailable, match="ConnectError"):
        OpenAIEmbedder("m", attempts=1)


def test_a_text_at_fault(endpoint: Endpoint) -> None:
    """An error of the text, not of the server: the smaller batches of a worker find it."""
    model = OpenAIEmbedder("m")
    endpoint.faults = [(400, {}, '{"error": "too long"}')]
    with pytest.raises(EmbedderError, match="400: too long") as caught:
        model.embed_documents(["a"])
    assert not isinstance(caught.value, EmbedderUnavailable)
    endpoint.change = lambda answer: {"data": [{"index": 0, "embedding": [1] * 2}, *answer["data"][:1]]}
    with pytest.raises(EmbedderError, match="expected vectors of one length"):
        model.embed_documents(["a", "b"])


def test_the_key_is_nowhere(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In no error, name, repr or log, not even where a server repeats it."""
    caplog.set_level(logging.DEBUG)
    model = OpenAIEmbedder("m", attempts=1)
    for status in (400, 401, 500, 200):
        endpoint.faults = [(status, {}, f'{{"error": {{"message": "bad key {KEY}"}}}}')]
        with pytest.raises(EmbedderError) as caught:
            model.embed_documents(["a"])
        assert KEY not in str(caught.value) + repr(caught.value)
        assert "***" in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as a file has it
    model.embed_documents(["a"])
    assert endpoint.requests[-1][1] == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\x01more")
    with pytest.raises(EmbedderError, match="printable ASCII") as caught:
        model.embed_documents(["a"])
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text + repr(model) + model.name + repr(vars(model))


@pytest.mark.parametrize("url", ["ftp://host/v1", "host", "http://user:pass@host/v1", "http://host/v1?key=secret"])
def test_urls_that_cannot_be(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """No other protocol, and no secret in it, which would be shown."""
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(EmbedderError, match="expected a URL such as") as caught:
        OpenAIEmbedder("m")
    assert "secret" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_rules_of_the_models_card(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts, layer normalization, length and trained truncations; an argument takes precedence."""
    path = tmp_path / "models.toml"
    path.write_text(
        '["openai:m"]\ntrained_dims = [2, 8]\nlayer_norm = true\nnormalise = false\nquery_prompt = "q: "\n'
        'document_prompt = "d: "\n'
    )
    monkeypatch.setenv("PGMRL_MODELS", str(path))
    model = load_embedder("openai:m")
    assert (model.name, model.trained_dims) == ("openai:m", (2, 8))
    vectors = model.embed_documents(["a text"])
    assert endpoint.requests[-1][0]["input"] == ["d: a text"]
    expected = vector_of("d: a text")
    assert_allclose(vectors[0], (expected - expected.mean()) / expected.std(), rtol=1e-4)
    model.embed_queries(["a text"])
    assert endpoint.requests[-1][0]["input"] == ["q: a text"]
    plain = load_embedder("openai:m?query_prompt=")
    plain.embed_queries(["a text"])
    assert endpoint.requests[-1][0]["input"] == ["a text"]
    assert plain.name == "openai:m?query_prompt="


def test_fields_of_the_models_card(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may take the side of a text in a field of its own, and none of the protocol's."""
    path = tmp_path / "models.toml"
    path.write_text(
        '["openai:m"]\nquery_fields = { task = "query", encoding_format = "" }\n'
        'document_fields = { task = "passage", model = "other" }\n'
    )
    monkeypatch.setenv("PGMRL_MODELS", str(path))
    model = load_embedder("openai:m")
    model.embed_documents(["a"])
    model.embed_queries(["a"])
    passage = {"model": "m", "input": ["a"], "task": "passage", "encoding_format": "float"}
    bodies = [body for body, _ in endpoint.requests]
    assert bodies == [passage, passage, {"model": "m", "input": ["a"], "task": "query"}]
    assert model.name == "openai:m"
