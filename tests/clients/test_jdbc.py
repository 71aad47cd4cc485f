"""The functions over JDBC, with the driver of pgJDBC and statements that it prepares on the server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.conftest import as_number

if TYPE_CHECKING:
    from tests.clients.conftest import Answer
    from tests.conftest import Wares
else:
    Answer = Wares = Any

DRIVER = Path("/usr/share/java/postgresql.jar")
PROGRAM = Path(__file__).parent / "Client.java"


def has_compiler(java: str) -> bool:
    """Whether it runs a source file; a JRE does not."""
    modules = subprocess.run([java, "--list-modules"], check=False, capture_output=True, text=True)  # noqa: S603 - found
    return "jdk.compiler" in modules.stdout


def email(package: dict[str, Any]) -> bool:
    """The filter."""
    return bool(package["package"] == "email")


def test_jdbc(wares: Wares, tcp_port: int, answers: list[Answer]) -> None:
    """Types, values, parameters by name, arrays, NULL, a cursor, shapes, an error: what the Java program prints."""
    java = shutil.which("java")
    if java is None or not DRIVER.exists() or not has_compiler(java):
        pytest.skip("Java or its driver is not installed: apt-get install libpostgresql-jdbc-java default-jdk-headless")
    url = f"jdbc:postgresql://127.0.0.1:{tcp_port}/{wares.engine.url.database}"
    calls = [str(one) for answer in answers for one in (answer.statement, *answer.given)]
    done = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
        [java, "-cp", str(DRIVER), str(PROGRAM), url, wares.literal(0), wares.literal(1), *calls],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line.split() for line in done.stdout.splitlines()]

    def of(kind: str) -> list[list[str]]:
        return [words[1:] for words in said if words[0] == kind]

    assert of("column") == [
        ["id", "java.lang.Integer"],
        ["distance", "java.lang.Double"],
        ["similarity", "java.lang.Double"],
        ["rank", "java.lang.Integer"],
        ["requested", "java.lang.Integer"],
        ["returned", "java.lang.Integer"],
    ]
    rows = of("row")
    assert [words[3:] for words in rows] == [["1", "3", "3"], ["2", "3", "3"], ["3", "3", "3"]]
    assert [float(words[1]) + float(words[2]) for words in rows] == pytest.approx([1, 1, 1])
    for number, server, *ids in of("prepared"):
        n = int(number)
        assert server == ("true" if n >= 5 else "false")
        expected = wares.nearest(wares.queries[0 if n % 2 else 1], n, None if n % 3 == 0 else email)
        assert list(map(int, ids)) == expected
    assert len(of("prepared")) == 12
    ((*filtered,),) = of("filters")
    assert list(map(int, filtered)) == wares.nearest(
        wares.queries[0], 5, lambda p: p["length"] >= 100 and p["package"] in {"asyncio", "email"}
    )
    assert [len(words) for kind in ("named", "similar", "cursor") for words in of(kind)] == [4, 4, 30]
    assert {"query", "k", "shortlist", "exact", "package", "length_min", "package_any"} <= {
        words[0] for words in of("argument")
    }
    assert ["passages_related", "VIEW"] in of("table")
    assert of("setting") == [["40"]]
    assert of("names") == [answer.columns for answer in answers]
    assert [tuple(map(as_number, words)) for words in of("values")] == [
        row for answer in answers for row in answer.rows
    ]
    assert of("refused") == [
        ["22000", *["ERROR:", "query", "has", "3", "dimensions,", "passages.embedding", "has", "96"]]
    ]
