"""`pgmrl.embed_text` with the bundled model beside the Python one: the same tokens, the same vectors."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text
from tokenizers import Tokenizer

from pgmrl.demo.corpus import docstrings
from pgmrl.embedders.static import StaticEmbedder, bundled_files
from pgmrl.embedders.token_model import load_token_model
from pgmrl.functions.text_models import install_model
from tests.databases import connected, shared_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.local import LocalServer

CHOSEN = [
    "",
    " ",
    "   ",
    " before and after ",
    "two  spaces   three",
    "a <s> b<unk></s>c",
    "<s>",
    "<0x41><s",
    "▁▁ a▁b",
    "日本語のテキスト、東京。",
    "ПРИВЕТ, мир! Как дела?",
    "שלום עולם مرحبا بالعالم हिन्दी ไทย 한국어",
    "😀😃 👩‍👩‍👧 Ωmega Straße ﬁ é e\u0301",
    "\x01\x02\t\n\r\x1b\x7f\u200b\ufeff\ufffd\U0010ffff",
    "internationalization PostgreSQL.AutoVacuum_worker",
    "a" * 600,
    "=-" * 300,
    "xyzzyqwrtpl" * 30,
    "it's \"quoted\" $$ \\ %s {x} '; --",
]
SCRIPTS = [
    (1, 0x7F),
    (0x80, 0x250),
    (0x370, 0x600),
    (0x900, 0x1200),
    (0x2000, 0x2C00),
    (0x4E00, 0x9000),
    (0x1F300, 0x1F700),
]

TEXTS = "unnest(CAST(:texts AS text[])) WITH ORDINALITY AS r (t, n) ORDER BY n"


def generated(count: int) -> list[str]:
    """Words of letters of all scripts."""
    chosen = random.Random(5)  # noqa: S311 - the same texts each time
    texts = []
    for _ in range(count):
        low, high = chosen.choice(SCRIPTS)
        words = ["".join(chr(chosen.randrange(low, high)) for _ in range(chosen.randrange(1, 9))) for _ in range(8)]
        texts.append(chosen.choice([" ", "  ", "\n", ""]).join(words))
    return texts


@pytest.fixture(scope="module")
def connection(server: LocalServer) -> Iterator[Connection]:
    """In a database with the bundled model, which is only read."""

    def fill(engine: Engine) -> None:
        with engine.begin() as connection:
            install_model(connection, "static", load_token_model("static"))

    with connected(shared_database(server, "static_model", fill)) as engine, engine.connect() as connection:
        yield connection


def token_ids(connection: Connection, texts: list[str]) -> list[list[int]]:
    """The tokens of each text, by SQL."""
    statement = f"SELECT pgmrl.token_ids_v1('static', t) FROM {TEXTS}"
    return [list(row[0]) for row in connection.execute(text(statement), {"texts": texts})]


def expected_ids(texts: list[str]) -> list[list[int]]:
    """The same by the tokenizers library, without the unknown token, which model2vec leaves out."""
    tokenizer = Tokenizer.from_file(str(bundled_files()[1]))
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [[number for number in encoding.ids if number] for encoding in encodings]


def test_tokens(connection: Connection) -> None:
    """Of real texts, of all scripts, of what is unusual."""
    texts = [*CHOSEN, *(docstring.text for docstring in docstrings()[::24]), *generated(400)]
    assert len(texts) > 800
    found, expected = token_ids(connection, texts), expected_ids(texts)
    assert [words for words, *ids in zip(texts, found, expected, strict=True) if ids[0] != ids[1]] == []


def test_tokens_of_a_long_text(connection: Connection) -> None:
    """Without a space, and of many words: in a time that grows with the text, not with its square."""
    chosen = random.Random(7)  # noqa: S311
    letters = "".join(chr(chosen.randrange(0x4E00, 0x9000)) for _ in range(10_000))
    words = " ".join(docstring.text for docstring in docstrings()[:200])
    assert token_ids(connection, [letters, words]) == expected_ids([letters, words])


def test_vectors(connection: Connection) -> None:
    """Within what single precision rounds, so within half precision."""
    texts = [words for words in CHOSEN if words] + generated(30) + [d.text for d in docstrings()[:50]]
    statement = f"SELECT CAST(pgmrl.embed_text('static', t) AS real[]) FROM {TEXTS}"
    found: Any = np.array([row[0] for row in connection.execute(text(statement), {"texts": texts})])
    np.testing.assert_allclose(found, StaticEmbedder().embed_documents(texts), atol=2e-6)
