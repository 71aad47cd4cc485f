"""Real text with real embeddings that every machine has: passages of the standard library's docstrings.

A passage is a whole docstring, a paragraph or a sentence of one; the bundled static model embeds it (256 dimensions,
trained with a Matryoshka loss). Docstrings differ from one Python to the next, and so do the passages: a test may rely
on the sizes below, and not on a text, a name or a count.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

import numpy as np
from filelock import FileLock

from pgmrl.demo.corpus import Docstring, docstrings
from pgmrl.embedders.static import StaticEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

ROWS: Final = 20_000
QUERIES: Final = 1_500
DIMS: Final = 256

_PARAGRAPH: Final = re.compile(r"\n\s*\n")
_SENTENCE: Final = re.compile(r"(?<=[.!?:])\s+(?=[A-Z])")
_WORDS: Final = 4  # fewer say too little to be told from others


class Passage(TypedDict):
    """What is known of a passage beside its vector.

    Keys:
        name: of the object it documents, unique by a number where it is a part: `json.dumps`, `json.dumps#2`.
        text: what was embedded.
        docstring: the text it is in.
        package: the top of the module: `json`; some two hundred of them, a few with a thousand passages.
        module: `json.encoder`.
        kind: module, class, function, method or property.
        length: characters of `text`.
        tags: kind, language, each part of the module's path, the class of a method, whether there is an example.
    """

    name: str
    text: str
    docstring: str
    package: str
    module: str
    kind: str
    length: int
    tags: list[str]


class Corpus(NamedTuple):
    """Passages and queries, in an order that has nothing to do with their content.

    Attributes:
        documents: the passages' vectors of unit length, shape (20000, 256), float32; no two are equal as halves.
        queries: vectors of other passages, shape (1500, 256).
        passages: what the rows of `documents` say.
        asked: what those of `queries` say.
        docstrings: all of them, ordered by name.
    """

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    passages: list[Passage]
    asked: list[Passage]
    docstrings: list[Docstring]


class _Part(NamedTuple):
    """A passage before its facts are written out: the docstring's place, its own in that (0: the whole), its text."""

    docstring: int
    number: int
    text: str


def load(folder: Path) -> Corpus:
    """The corpus of a test run: whoever comes first embeds it and leaves it in the folder for the others."""
    stored = folder / "corpus.npz"
    with FileLock(folder / "corpus.lock"):
        if not stored.exists():
            _store(stored)
    with np.load(stored) as arrays:
        documents, queries = arrays["documents"], arrays["queries"]
        texts = json.loads(arrays["texts"].tobytes())
    known = [Docstring(**fields) for fields in texts["docstrings"]]
    passages = [_passage(known[part[0]], *part[1:]) for part in texts["parts"]]
    return Corpus(documents, queries, passages[:ROWS], passages[ROWS:], known)


def facts(passage: Passage, *names: str) -> dict[str, object]:
    """What a table has columns for."""
    return {name: value for name, value in passage.items() if name in names}


def wide(passages: list[Passage]) -> NDArray[np.float32]:
    """Vectors of 768 dimensions, of unit length: text, name and whole docstring of a passage, each embedded for itself.

    For what only vectors show that are too large for the row. The leading 256 dimensions are the text's.
    """
    names = [" ".join(re.findall(r"[A-Z]*[a-z]+|[A-Z]+", passage["name"])) for passage in passages]
    fields = ([passage["text"] for passage in passages], names, [passage["docstring"] for passage in passages])
    embedder = StaticEmbedder()
    vectors = np.concatenate([embedder.embed_documents(texts) for texts in fields], axis=1)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _store(path: Path) -> None:
    known = docstrings()
    parts = sorted(_parts(known), key=lambda part: hashlib.sha256(part.text.encode()).digest())
    parts = parts[: ROWS + QUERIES + 200]
    vectors = StaticEmbedder().embed_documents([part.text for part in parts])
    # two texts of the same tokens would tie; which of them comes first is no test's concern
    _, first = np.unique(vectors.astype(np.float16), axis=0, return_index=True)
    chosen = np.sort(first)[: ROWS + QUERIES]
    if len(chosen) < ROWS + QUERIES:
        raise RuntimeError(
            f"expected {ROWS + QUERIES:,} passages in the library's docstrings, got {len(chosen):,}: the tests "
            "need a Python that comes with the sources of its library"
        )
    texts = {
        "docstrings": [asdict(docstring) for docstring in known],
        "parts": [parts[n] for n in chosen],
    }
    new = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        new,
        documents=vectors[chosen[:ROWS]],
        queries=vectors[chosen[ROWS:]],
        texts=np.frombuffer(json.dumps(texts).encode(), np.uint8),
    )
    new.replace(path)


def _parts(known: list[Docstring]) -> Iterator[_Part]:
    """Every passage once, however its words are ordered or written."""
    seen: set[str] = set()
    for place, docstring in enumerate(known):
        for number, text in enumerate(_split(docstring.text)):
            words = text.casefold().split()
            key = " ".join(sorted(words))
            if len(words) >= _WORDS and key not in seen:
                seen.add(key)
                yield _Part(place, number, text)


def _split(text: str) -> Iterator[str]:
    """The whole, its paragraphs and their sentences, each on one line."""
    yield " ".join(text.split())
    for paragraph in _PARAGRAPH.split(text):
        line = " ".join(paragraph.split())
        yield line
        yield from _SENTENCE.split(line)


def _passage(docstring: Docstring, number: int, text: str) -> Passage:
    return {
        "name": f"{docstring.name}#{number}" if number else docstring.name,
        "text": text,
        "docstring": docstring.text,
        "package": docstring.package,
        "module": docstring.module,
        "kind": docstring.kind,
        "length": len(text),
        "tags": _tags(docstring),
    }


def _tags(docstring: Docstring) -> list[str]:
    tags = {f"kind::{docstring.kind}", f"module::{docstring.module}"}
    tags |= {f"topic::{part.strip('_')}" for part in docstring.module.split(".")}
    tags.add("written-in::c" if docstring.path is None else "written-in::python")
    if docstring.kind in {"method", "property"}:
        tags.add(f"class::{docstring.name.split('.')[-2]}")
    if ">>>" in docstring.text:
        tags.add("has::example")
    return sorted(tags)
