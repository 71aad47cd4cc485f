r"""The functions from psql: variables, \\gset, descriptions, COPY."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from tests.clients.conftest import as_number

if TYPE_CHECKING:
    from pgmrl.local import LocalServer
    from tests.clients.conftest import Answer
    from tests.conftest import Wares
else:
    Answer = LocalServer = Wares = Any


def run(psql: str, server: LocalServer, wares: Wares, script: str, *options: str) -> list[list[str]]:
    """The rows that a script prints, unaligned."""
    done = subprocess.run(  # noqa: S603 - the wheel's programs, no shell
        [psql, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", *options, server.url(wares.engine.url.database)],
        input=script,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


def test_variables_and_gset(psql: str, server: LocalServer, wares: Wares) -> None:
    """A vector, a number and a filter from the command line; the nearest row's key goes into the next call."""
    script = """
        SELECT id AS nearest FROM passages_search(:'vector', 1, exact => true, package => :'package') \\gset
        SELECT :nearest;
        SELECT id, rank, requested, returned FROM passages_similar(:nearest, :k, exact => true);
    """
    given = ["-v", f"vector={wares.literal(3)}", "-v", "package=email", "-v", "k=4"]
    (first,), *rest = run(psql, server, wares, script, *given)
    assert [int(first)] == wares.nearest(wares.queries[3], 1, lambda p: p["package"] == "email")
    expected = [n for n in wares.nearest(wares.vectors[int(first)], 5) if n != int(first)][:4]
    assert rest == [[str(n), str(rank), "4", "4"] for rank, n in enumerate(expected, 1)]


def test_text_with_quotes(psql: str, server: LocalServer, wares: Wares) -> None:
    """A named query and a filter with quotes, passed as psql quotes them."""
    script = "SELECT count(*) FROM passages_search_named(:'name', package_any => ARRAY[:'one', 'email']);"
    assert run(psql, server, wares, script, "-v", "name=it's", "-v", "one='; DROP TABLE passages; --") == [["10"]]


def test_bind(psql: str, server: LocalServer, wares: Wares) -> None:
    """Parameters of the protocol, as an application sends them."""
    script = f"SELECT id FROM passages_search($1, $2::integer, exact => true) \\bind '{wares.literal(5)}' 6 \\g\n"
    assert [int(row[0]) for row in run(psql, server, wares, script)] == wares.nearest(wares.queries[5], 6)


def test_every_shape(psql: str, server: LocalServer, wares: Wares, answers: list[Answer]) -> None:
    """Rows that differ, groups, words: what psycopg gets, digit for digit."""
    for one in answers:
        escaped = [str(value).replace("\\", "\\\\").replace("'", "''") for value in one.given]
        sent = " ".join(f"'{value}'" for value in escaped)
        found = run(psql, server, wares, f"{one.with_numbers()} \\bind {sent} \\g\n")
        assert [tuple(map(as_number, row)) for row in found] == one.rows


def test_descriptions_and_copy(psql: str, server: LocalServer, wares: Wares) -> None:
    r"""What \\df+ shows, and a result as CSV."""
    described = run(psql, server, wares, "\\df passages_*\n")
    assert {"passages_search", "passages_similar", "passages_search_named"} <= {
        row[1] for row in described if len(row) > 1
    }
    listed = run(
        psql, server, wares, "SELECT function_name, callable FROM pgmrl.functions WHERE table_name = 'passages';"
    )
    assert ["passages_search", "t"] in listed
    copied = run(psql, server, wares, "COPY (SELECT id, rank FROM passages_similar(8, 3)) TO STDOUT (FORMAT csv);")
    assert [line[0].split(",")[1] for line in copied] == ["1", "2", "3"]
