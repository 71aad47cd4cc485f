"""The corpus is what the first command shows: it must be there, in order, without repeats, and quickly."""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from collections import Counter

import pytest

from pgmrl.demo.corpus import Docstring, docstrings


@pytest.fixture(scope="module")
def corpus() -> list[Docstring]:
    """The whole corpus, read once."""
    return docstrings()


@pytest.fixture(scope="module")
def by_name(corpus: list[Docstring]) -> dict[str, Docstring]:
    """The corpus by full name."""
    return {entry.name: entry for entry in corpus}


def test_some_ten_thousand(corpus: list[Docstring]) -> None:
    """A full CPython has between nine and ten thousand; Debian's packages leave some out."""
    assert 8_000 < len(corpus) < 12_000


def test_names_and_texts_are_unique(corpus: list[Docstring]) -> None:
    """Names can be a primary key, and no text takes two places in a result."""
    assert [name for name, count in Counter(entry.name for entry in corpus).items() if count > 1] == []
    assert len({entry.text for entry in corpus}) == len(corpus)


def test_order_is_the_same_every_time(corpus: list[Docstring]) -> None:
    """By name, and the same in another process with another hash seed."""
    assert [entry.name for entry in corpus] == sorted(entry.name for entry in corpus)
    code = (
        "import hashlib; from pgmrl.demo.corpus import docstrings;"
        "print(hashlib.sha256(repr([(d.name, d.text) for d in docstrings()]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_method_read_from_source(by_name: dict[str, Docstring]) -> None:
    """Everything known about a method agrees with the live object."""
    entry = by_name["json.encoder.JSONEncoder.iterencode"]
    live = json.JSONEncoder.iterencode
    assert (entry.kind, entry.module, entry.package) == ("method", "json.encoder", "json")
    assert entry.text == inspect.getdoc(live)
    assert entry.signature == str(inspect.signature(live))
    assert (entry.path, entry.line) == ("json/encoder.py", inspect.getsourcelines(live)[1])


def test_a_function_written_in_c(by_name: dict[str, Docstring]) -> None:
    """C functions have text and often a signature, but no source."""
    entry = by_name["math.sin"]
    assert entry.text == inspect.getdoc(math.sin)
    assert entry.signature == str(inspect.signature(math.sin))
    assert (entry.kind, entry.path, entry.line) == ("function", None, None)


def test_signatures_of_c_functions_are_written_as_in_python(corpus: list[Docstring]) -> None:
    """No marker of Argument Clinic is left; a keyword-only start is not lost."""
    compiled = [entry.signature for entry in corpus if entry.path is None and entry.signature]
    assert len(compiled) > 500
    assert [text for text in compiled if "$" in text or "<" in text or not text.startswith("(")] == []


def test_c_types_are_known_by_their_public_name(by_name: dict[str, Docstring]) -> None:
    """Nobody looks for `_collections.deque` or `posix.getcwd`."""
    assert {"collections.deque", "os.getcwd", "decimal.Decimal.sqrt", "builtins.str.join"} <= by_name.keys()
    assert not [name for name in by_name if name.startswith(("posix.", "_pydecimal", "_collections."))]


def test_all_kinds_are_there(corpus: list[Docstring], by_name: dict[str, Docstring]) -> None:
    """Modules, classes, functions, methods and properties, each told apart."""
    assert set(Counter(entry.kind for entry in corpus)) == {"module", "class", "function", "method", "property"}
    assert by_name["json"].kind == "module"
    assert by_name["json.dumps"].kind == "function"
    assert by_name["json.encoder.JSONEncoder"].kind == "class"
    assert by_name["pathlib.PurePath.name"].kind == "property"
    assert by_name["pathlib.PurePath.name"].signature is None


def test_definitions_under_a_condition_are_found(by_name: dict[str, Docstring]) -> None:
    """The library defines much inside `if` and `try`: `shutil.disk_usage` depends on the platform."""
    assert by_name["shutil.disk_usage"].kind == "function"


def test_tests_and_third_parties_are_left_out(corpus: list[Docstring]) -> None:
    """Only the library: no tests, nothing that pip installed."""
    parts = {part for entry in corpus for part in entry.module.split(".")}
    assert parts.isdisjoint({"test", "tests", "idle_test", "pip", "numpy", "pytest", "__init__"})


def test_text_can_be_stored(corpus: list[Docstring]) -> None:
    """PostgreSQL refuses NUL, psycopg half surrogate pairs; an empty text has no vector."""
    assert [entry.name for entry in corpus if "\0" in entry.text or not entry.text.strip()] == []
    for entry in corpus:
        entry.text.encode()


def test_summary_is_one_line(corpus: list[Docstring]) -> None:
    """The first paragraph, however it was broken; it opens the text."""
    assert [entry.name for entry in corpus if "\n" in entry.summary or not entry.summary] == []
    assert all(entry.text.split()[0] == entry.summary.split()[0] for entry in corpus)


def test_reading_runs_nothing_of_the_library() -> None:
    """Importing `antigravity` opens a browser and `this` prints; reading them does neither."""
    code = (
        "import sys; from pgmrl.demo.corpus import docstrings; docs = docstrings();"
        "assert 'turtle' in {d.module for d in docs};"
        "assert not {'this', 'antigravity', 'turtle', 'tkinter'} & set(sys.modules)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
