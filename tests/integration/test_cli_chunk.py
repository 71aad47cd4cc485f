"""`pgmrl chunk`: from long texts to passages that stay in step."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from tests.cli import failure, ok, ok_json, run
from tests.migrations.processes import until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def manuals(place: Path, engine: Engine) -> Engine:
    """Texts, a table for their chunks, and DATABASE_URL."""
    assert place.is_dir()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE manuals (id int PRIMARY KEY, title text, body text)"))
        connection.execute(
            text(
                "CREATE TABLE passages (id serial PRIMARY KEY, manual int NOT NULL REFERENCES manuals "
                "ON DELETE CASCADE, ordinal int, start int, stop int, text text, embedding halfvec(256))"
            )
        )
        connection.execute(text("INSERT INTO manuals VALUES (1, 'Steam', 'Oil the bearings.'), (2, '', NULL)"))
    return engine


def install(*more: str) -> list[str]:
    """The arguments that install it."""
    return ["chunk", "passages", "--install", "--text", "{title}: {body}", "--by", "static", *more]


def test_from_texts_to_vectors(manuals: Engine) -> None:
    """Installed, cut, embedded; and removed again."""
    assert "no trigger keeps the chunks in passages" in str(failure("chunk", "passages"))
    assert ok(*install("--size", "8", "--overlap", "2")) == "passages: 2 rows marked\n"
    ok("embed", "passages.embedding", "--install", "--text", "text", "--by", "static")
    assert ok("chunk", "passages") == "public.passages: 1 text cut, 1 without a text\n"
    assert "2 vectors stored" in ok("embed", "passages.embedding")
    assert ok_json("chunk", "passages")["written"] == 0
    assert {row["column"] for row in ok_json("embed", "--status")} == {"embedding", "chunks in public.passages"}
    with manuals.begin() as connection:
        connection.execute(text("UPDATE manuals SET body = repeat(body || E'\\n', 9)"))
    result = run("chunk", "passages", "--max-bytes", "9", "--attempts", "1")
    assert result.exit_code == 1
    assert "1 parked" in result.output
    assert "1 text cut" in ok("chunk", "passages", "--retry")
    ok("chunk", "passages", "--drop")
    assert len(ok_json("embed", "--status")) == 1


def test_both_in_one_process(manuals: Engine) -> None:
    """Cuts, and embeds what was cut; a model that both name is one."""
    ok(*install("--size", "64"))
    assert "no column of public.passages is kept in step" in str(failure("chunk", "passages", "--embed"))
    ok("embed", "passages.embedding", "--install", "--text", "text", "--by", "static")
    line = ok("chunk", "passages", "--embed")
    assert line == "public.passages: 1 text cut, 1 without a text; 1 vector stored in embedding\n"
    with manuals.begin() as connection:
        connection.execute(text("UPDATE manuals SET body = body || body"))
    report = ok_json("chunk", "passages", "--embed")
    assert (report["written"], report["embedded"]["embedding"]["written"]) == (1, 1)
    other = failure("chunk", "passages", "--embed", "--embedder", "tests.letters:Letters")
    assert "is kept by static, expected none of 'tests.letters:Letters'" in str(other)
    assert run("chunk", "passages", "--embed", "--drop").exit_code == 2


def test_both_in_one_process_for_ever(manuals: Engine) -> None:
    """A change is cut and embedded; where one of the two ends by an error the other ends too, and SIGTERM ends both."""
    ok(*install("--size", "64"))
    ok("embed", "passages.embedding", "--install", "--text", "text", "--by", "static")
    ok("chunk", "passages", "--embed")
    command = [sys.executable, "-m", "pgmrl.cli", "chunk", "passages", "--embed", "--watch", "--json"]
    vectors = text("SELECT array_agg(text ORDER BY ordinal) FROM passages HAVING bool_and(embedding IS NOT NULL)")

    def stored(body: str) -> bool:
        with manuals.connect() as connection:
            return connection.execute(vectors).scalar() == [body]

    for ending in ("signal", "reinstalled"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:  # noqa: S603
            with manuals.begin() as connection:
                connection.execute(text("UPDATE manuals SET body = :body WHERE id = 1"), {"body": ending})
            until(partial(stored, f"Steam: {ending}"), 120)
            if ending == "signal":
                worker.send_signal(signal.SIGTERM)
                report = json.loads(worker.communicate(timeout=60)[0])
                assert (report["written"], report["embedded"]["embedding"]["written"]) == (1, 1)
                assert worker.returncode == 0
            else:
                ok("embed", "passages.embedding", "--install", "--text", "{text} ", "--by", "static", "--all")
                assert "start the worker again" in worker.communicate(timeout=60)[1]
                assert worker.returncode == 1


def test_no_code_is_run_because_a_database_names_it(manuals: Engine) -> None:
    """The command line names it as well."""
    assert manuals.url.database
    ok("chunk", "passages", "--install", "--text", "body", "--by", "tests.letters:Letters")
    message = "no code is run because a database names it: give --embedder tests.letters:Letters"
    assert message in str(failure("chunk", "passages"))
    asked = failure("chunk", "passages", "--embedder", "tests.letters:Letters")
    assert "does not count its tokens" in str(asked)
    other = failure("chunk", "passages", "--embedder", "static")
    assert "public.passages is kept by the model tests.letters:Letters, expected none of 'static'" in str(other)
    assert run("chunk", "passages", "--install").exit_code == 2
    assert run("chunk", "passages", "--drop", "--watch").exit_code == 2


def test_line_breaks_of_the_command_line(manuals: Engine) -> None:
    r"""A shell leaves `\n` in quotes as it is; the text has a line break, in chunks as in what is embedded."""
    ok("chunk", "passages", "--install", "--text", r"{title}\n\n{body}", "--by", "characters")
    ok("chunk", "passages")
    ok("embed", "passages.embedding", "--install", "--text", r"{text}\t.", "--by", "static")
    with manuals.begin() as connection:
        assert connection.execute(text("SELECT text FROM passages")).scalars().all() == ["Steam\n\nOil the bearings."]
        assert connection.execute(text("SELECT template FROM pgmrl.embeddings")).scalars().all() == ["{text}\t."]


def test_what_names_no_model_or_text_is_refused(manuals: Engine) -> None:
    """Before rows are marked for it."""
    ok("embed", "passages.embedding", "--install", "--text", "text", "--by", "static")
    for command, column in (("chunk", "passages"), ("embed", "passages.embedding")):
        message = "got the embedder 'stattic'"
        assert message in str(failure(command, column, "--install", "--text", "text", "--by", "stattic"))
        assert "expected a text" in str(failure(command, column, "--install", "--text", "", "--by", "static"))
    with manuals.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM pgmrl.chunk_tables")).scalar_one() == 0
