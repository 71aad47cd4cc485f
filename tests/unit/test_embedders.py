"""Embedders: the bundled model for real, the factory's every way to fail, the checks on what a model returns."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import (
    Embedder,
    check_vectors,
    embed_batches,
    embed_query,
    load_embedder,
    unit_length,
    zero_vectors,
)
from pgmrl.embedders.static import StaticEmbedder
from pgmrl.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def static() -> StaticEmbedder:
    """The bundled model."""
    return StaticEmbedder()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The corpus as it is embedded: name and summary."""
    return [f"{one.name}: {one.summary}" for one in docstrings()]


@pytest.fixture(scope="module")
def vectors(static: StaticEmbedder, texts: list[str]) -> NDArray[np.float32]:
    """The corpus' full vectors."""
    return static.embed_documents(texts)


# The bundled model


def test_static_is_an_embedder(static: StaticEmbedder) -> None:
    """The protocol, its dimensions and what it was trained for."""
    assert isinstance(static, Embedder)
    assert (static.dims, static.trained_dims) == (256, (64, 128, 256))


def test_static_vectors_have_unit_length(vectors: NDArray[np.float32], texts: list[str]) -> None:
    """One row a text, single precision, length 1."""
    assert vectors.shape == (len(texts), 256)
    assert vectors.dtype == np.float32
    assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_static_is_the_mean_of_token_vectors(static: StaticEmbedder) -> None:
    """Recomputed from the files of the wheel, without model2vec."""
    from safetensors.numpy import load_file  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    from pgmrl.embedders.static import _TOKENIZER, _WEIGHTS, _bundled  # noqa: PLC0415

    text = "Deserialize a file-like object containing a JSON document. " * 200  # far beyond 512 tokens
    tokens = Tokenizer.from_file(str(_bundled(_TOKENIZER))).encode(text, add_special_tokens=False).ids
    mean = load_file(_bundled(_WEIGHTS))["embedding.weight"][tokens].astype(np.float64).mean(axis=0)
    assert_allclose(static.embed_documents([text])[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(
    ("query", "module"),
    [
        ("read a json file", "json"),
        ("random number between a and b", "random"),
        ("gzip compressed file", "gzip"),
        ("square root of a decimal number", "decimal"),
        ("directory of temporary files", "tempfile"),
    ],
)
def test_static_finds_what_is_meant(
    static: StaticEmbedder, vectors: NDArray[np.float32], texts: list[str], query: str, module: str
) -> None:
    """A question in plain words ranks the right module's documents first among ten thousand."""
    nearest = np.argsort(-vectors @ embed_query(static, query))[:3]
    assert texts[nearest[0]].startswith(module), [texts[row] for row in nearest]


@pytest.mark.parametrize(("dims", "at_least"), [(64, 0.9), (128, 0.98)])
def test_static_short_vectors_keep_neighbours(vectors: NDArray[np.float32], dims: int, at_least: float) -> None:
    """Recall@10 of a shortlist of 100: leading dimensions, scaled back, hold the neighbours as trained."""
    short = unit_length(vectors[:, :dims])
    recall = []
    for row in range(0, len(vectors), len(vectors) // 200):
        exact = np.argsort(-vectors @ vectors[row])[:10]
        shortlist = np.argsort(-short @ short[row])[:100]
        recall.append(len(np.intersect1d(exact, shortlist)) / 10)
    assert np.mean(recall) > at_least


def test_static_does_not_depend_on_the_batch(static: StaticEmbedder, texts: list[str]) -> None:
    """A text's vector is its own, alone or among others, as document or as query."""
    some = texts[:2000:40]
    together = static.embed_documents(some)
    assert_allclose(together, np.vstack([static.embed_queries([text]) for text in some]), atol=1e-6)


def test_static_needs_no_network_and_no_torch() -> None:
    """Loaded and used with every connection forbidden and the hub *not* told to be offline."""
    code = """
        import sys
        def forbid(event, args):
            if event in {"socket.connect", "socket.getaddrinfo"}:
                raise SystemExit(f"{event} {args}")
        sys.addaudithook(forbid)
        from pgmrl.embedders import load_embedder
        assert not {"model2vec", "torch", "tokenizers"} & set(sys.modules), "imported before it is used"
        assert load_embedder("static").embed_queries(["json"]).shape == (1, 256)
        assert not {"torch", "wordllama"} & set(sys.modules)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
        [sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_texts_are_no_rows(static: StaticEmbedder) -> None:
    """An empty batch keeps its columns, so that concatenating works."""
    assert static.embed_documents([]).shape == (0, 256)


def test_a_single_string_is_refused(static: StaticEmbedder) -> None:
    """A string is a sequence of strings, too: it would be embedded letter by letter."""
    with pytest.raises(EmbedderError, match="expected a list of texts, got a single string"):
        static.embed_documents("json")


def test_null_among_texts_is_named(static: StaticEmbedder) -> None:
    """A NULL from a database column is reported with its place."""
    with pytest.raises(EmbedderError, match="expected a string as text 1, got None"):
        static.embed_documents(["json", None])  # type: ignore[list-item]


# Zero vectors


def test_texts_without_tokens_are_zero_and_found(static: StaticEmbedder) -> None:
    """The model gives a zero vector for an empty text; it is neither NaN nor hidden."""
    vectors = static.embed_documents(["json", "", "xml", ""])
    assert not vectors[[1, 3]].any()
    assert zero_vectors(vectors) == [1, 3]
    assert zero_vectors(vectors[[0, 2]]) == []
    assert zero_vectors(vectors[:0]) == []


def test_a_query_without_tokens_is_an_error(static: StaticEmbedder) -> None:
    """Nothing can be searched for with a zero vector: the server would answer with arbitrary rows."""
    with pytest.raises(EmbedderError, match="zero vector for the query ''"):
        embed_query(static, "")


# Batches


def test_batches_cover_all_in_order(static: StaticEmbedder, texts: list[str], vectors: NDArray[np.float32]) -> None:
    """The batches' texts and vectors are those of one call; the last batch is short."""
    batches = list(embed_batches(static, iter(texts[:2500]), batch_size=1000))
    assert [len(batch) for batch, _ in batches] == [1000, 1000, 500]
    assert [text for batch, _ in batches for text in batch] == texts[:2500]
    assert_allclose(np.vstack([rows for _, rows in batches]), vectors[:2500], atol=1e-6)


def test_batches_read_no_further_than_needed(static: StaticEmbedder) -> None:
    """A source that does not end can be embedded: nothing is read ahead of the batch."""
    read: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            read.append(len(read))
            yield "json"

    batches = embed_batches(static, endless(), batch_size=8)
    next(batches)
    assert len(read) == 8


def test_vectors_of_no_length_are_normalised_to_nothing() -> None:
    """Zero rows stay zero and do not become NaN; input is left as it was."""
    rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert_allclose(unit_length(rows), np.array([[0.6, 0.8], [0.0, 0.0]]), atol=1e-7)
    assert_array_equal(rows[0], [3, 4])


# What a model returns


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((2, 255)), r"expected vectors of shape \(2, 256\) .* got shape \(2, 255\)"),
        (np.zeros((1, 256)), r"got shape \(1, 256\)"),
        (np.zeros(256), r"got shape \(256,\)"),
        ([[1.0, 2.0], [1.0]], "expected an array of numbers"),
        ([["a"] * 256] * 2, "expected an array of numbers"),
        (None, r"got shape \(\)"),
        (np.vstack([np.ones(256), np.full(256, np.nan)]), "NaN or infinity for 1 of 2 texts, the first of them text 1"),
        (np.vstack([np.full(256, np.inf), np.ones(256)]), "for 1 of 2 texts, the first of them text 0"),
        (np.full((2, 256), 1e300), "for 2 of 2 texts, the first of them text 0"),
    ],
)
def test_what_is_not_as_promised_is_refused(static: StaticEmbedder, returned: Any, message: str) -> None:
    """Wrong shapes, things that are no numbers, and values a database refuses, with the model's name."""
    with pytest.raises(EmbedderError, match=message) as refused:
        check_vectors(static, returned, 2)
    assert static.name in str(refused.value)


def test_lists_and_double_precision_are_accepted(static: StaticEmbedder) -> None:
    """An embedder that wraps a web service returns lists; they come out as float32."""
    assert check_vectors(static, np.ones((2, 256)).tolist(), 2).dtype == np.float32


# The factory


def test_factory_gives_the_bundled_model_by_default() -> None:
    """Without a word, by its name, and by the name it records."""
    for spec in ("static", StaticEmbedder.name):
        assert load_embedder(spec).name == StaticEmbedder.name
    assert load_embedder().name == StaticEmbedder.name


@pytest.mark.parametrize(
    "spec",
    ["", "statical", "static:other", "sentence-transformers", "sentence-transformers:", "openai:", "a:b:c", ":x"],
)
def test_factory_refuses_what_it_does_not_know(spec: str) -> None:
    """The error says which forms there are."""
    with pytest.raises(EmbedderError, match=r"expected .*package\.module:attribute., got the embedder"):
        load_embedder(spec)


OWN = '''
import numpy as np
from pgmrl.embedders.static import StaticEmbedder

class Short(StaticEmbedder):
    """The bundled model's leading 64 dimensions."""
    name, dims, trained_dims = "short", 64, (64,)
    def embed_documents(self, texts):
        return super().embed_documents(texts)[:, :64]

class Bad(Short):
    dims = 0

class Unordered(Short):
    trained_dims = (64, 32)

class Beyond(Short):
    trained_dims = (64, 128)

class NoEmbedder:
    name = "half"
    def embed_documents(self, texts): ...

made = Short()
def make(): return Short()
def fails(): return 1 / 0
def wants(dims): return Short()
number = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module with embedders, importable for one test."""
    (tmp_path / "own_embedders.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('no key')")
    (tmp_path / "own_needs.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_embedders", "own_broken", "own_needs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("attribute", ["made", "make", "Short"])
def test_factory_takes_the_users_own(attribute: str) -> None:
    """An instance, a function and a class all give an embedder."""
    found = load_embedder(f"own_embedders:{attribute}")
    assert (found.name, found.dims) == ("short", 64)
    assert embed_query(found, "json").shape == (64,)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_embedders:nothing", "own_embedders has no attribute 'nothing'"),
        ("own_embedders:number", "got a int without name, dims"),
        ("own_embedders:NoEmbedder", "NoEmbedder without dims, trained_dims, embed_queries"),
        ("own_embedders:fails", "calling it failed: ZeroDivisionError"),
        ("own_embedders:wants", "calling it failed: TypeError"),
        ("own_embedders:Bad", "expected a positive whole number as dims, got 0"),
        ("own_embedders:Unordered", "expected trained_dims in ascending order"),
        ("own_embedders:Beyond", "from 1 to 64, got"),
        ("own_broken:made", "importing own_broken failed: RuntimeError: no key"),
        ("own_needs:made", "own_needs needs 'not_installed_anywhere'"),
        ("nowhere_to_be_found:made", "no module 'nowhere_to_be_found'"),
        ("own_embedders.deeper:made", r"no module 'own_embedders\.deeper'"),
    ],
)
def test_factory_says_what_is_wrong_with_the_users_own(spec: str, message: str) -> None:
    """Each way to fail has its own words."""
    with pytest.raises(EmbedderError, match=message):
        load_embedder(spec)


@pytest.mark.parametrize("package", ["model2vec", "wordllama", "safetensors.numpy", "tokenizers"])
def test_missing_extra_is_named_with_its_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says which command brings it."""
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself takes for "not there"
    with pytest.raises(EmbedderError, match=rf"needs .*{package}.*pip install 'pgmrl\[local\]'"):
        load_embedder("static")


def test_missing_sentence_transformers_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the other extra."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EmbedderError, match=r"pip install 'pgmrl\[sentence-transformers\]'"):
        load_embedder("sentence-transformers:all-MiniLM-L6-v2")
