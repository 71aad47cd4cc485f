"""The documentation is true: examples run, code compiles, SQL runs, names and links exist."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Computed, Integer, MetaData, Table, Text, create_engine, select, text
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR

import pgmrl
import pgmrl.alembic
from pgmrl import (
    Matryoshka,
    Nearest,
    Prefix,
    Rotation,
    Short,
    SqlFunctions,
    Words,
    database,
    errors,
    ingest,
    install_functions,
    reflect,
    search,
    search_hybrid,
)
from pgmrl.doctor import CHECKS
from pgmrl.embedders.token_model import load_token_model
from pgmrl.functions.named_queries import add_query
from pgmrl.functions.text_models import install_model
from tests.small_model import write_model

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [*PAGES, ROOT / "README.md"]
ROTATION_IN_THE_TEXT = "r9c41a2b3c4d5"  # stands for any rotation


class Block(NamedTuple):
    """A fenced block: where it is, its language, its text, the file of the repository that it is a part of."""

    page: str
    line: int
    language: str
    text: str
    source: str | None


def _blocks(page: Path) -> list[Block]:
    blocks: list[Block] = []
    lines: list[str] = []
    language, source, start, indent = None, None, 0, 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r'(\s*)```(\w*)(?: title="(.+)")?$', line)
        if fence is None:
            if language is not None:
                lines.append(line)
        elif language is None:
            language, source, start, indent, lines = fence.group(2), fence.group(3), number, len(fence.group(1)), []
        else:
            body = "\n".join(part[indent:] for part in lines)
            blocks.append(Block(page.name, start, language, body, source))
            language = None
    assert language is None, f"{page.name}: a fence is not closed"
    return blocks


def _blocks_in(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.page}:{block.line}")
        for page in LINKED
        for block in _blocks(page)
        if block.language == language
    ]


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("gen_cli", DOCS / "gen_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- code ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quickstart", "existing", "embed", "chunks"])
def test_the_examples_run(name: str, database_url: str) -> None:
    """From an empty database to their last line; the quick start shows the plan that its page tells the reader of."""
    ran = subprocess.run(  # noqa: S603 - this interpreter, our own file
        [sys.executable, ROOT / "examples" / f"{name}.py"],
        env={**os.environ, "DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    expected = {
        "quickstart": [
            r"recall@5 of this query: 1\.00",
            "Index Scan using quickstart_docstrings_embedding_short_64_hnsw",
        ],
        "existing": [r"existing_reviews still has the columns"],
        "embed": ["found: Steam"],
        "chunks": [r"\d\.\d\d Sourdough \d+-\d+: '.*open the lid"],
    }
    for pattern in expected[name]:
        assert re.search(pattern, ran.stdout), ran.stdout


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{block.page}:{block.line}")
        for page in LINKED
        for block in _blocks(page)
        if block.source
    ],
)
def test_code_of_a_file_is_as_it_is_there(block: Block) -> None:
    """A block whose title is a file shows successive lines of it, without their indentation."""
    lines, shown = (ROOT / str(block.source)).read_text(encoding="utf-8").splitlines(), block.text.splitlines()
    parts = (lines[first : first + len(shown)] for first in range(len(lines)))
    assert block.text in {textwrap.dedent("\n".join(part)) for part in parts}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_nothing_is_included(page: Path) -> None:
    """A page is read in the repository too, where an include would stand instead of what it means."""
    text = page.read_text(encoding="utf-8")
    assert "--8<--" not in text
    for name in re.findall(r"^<!-- (\S+\.md) -->$", text, re.MULTILINE):
        copied = text.partition(f"<!-- {name} -->\n\n")[2]
        assert copied.startswith((ROOT / name).read_text(encoding="utf-8")), f"copy {name} into {page.name} again"


@pytest.mark.parametrize("block", _blocks_in("python"))
def test_python_compiles_and_imports_what_exists(block: Block) -> None:
    """Every Python block; names imported from pgmrl are there."""
    tree = ast.parse(block.text)
    compile(tree, block.page, "exec", dont_inherit=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pgmrl":
            module = importlib.import_module(node.module)
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize(
    "page", [page.name for page in PAGES if any(b.language == "postgresql" for b in _blocks(page))]
)
def test_the_statement_is_the_one_that_is_sent(page: str) -> None:
    """A page that explains a statement shows what its own code prints."""
    blocks = _blocks(DOCS / page)
    code = next(block for block in blocks if block.language == "python")
    shown = next(block for block in blocks if block.language == "postgresql")
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(code.text, page, "exec", dont_inherit=True), {"__name__": "shown"})  # noqa: S102 - our own page
    assert printed.getvalue().split() == shown.text.split()


# -- SQL -----------------------------------------------------------------------------------------------------------


def _axes(dims: int, count: int) -> Rotation:
    return Rotation.of(np.linalg.qr(np.random.default_rng(1).normal(size=(dims, dims)))[0][:count])


@pytest.fixture
def small(database_url: str, tmp_path: Path) -> tuple[str, str]:
    """The tables that the pages speak of, with fifty rows each; the URL and the rotation's id."""
    rotation, vectors = _axes(768, 128), np.random.default_rng(2).normal(size=(50, 768))
    metadata = MetaData()
    tables = [
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column(title, Text),
            Column("section", Text),
            Column("installed_kb", Integer),
            Column("source", Text),
            Column("tags", ARRAY(Text)),
            Column("lexemes", TSVECTOR, Computed(f"to_tsvector('english'::regconfig, {title})", persisted=True)),
            Column("embedding", Matryoshka(768, Short(128, by=by))),
        )
        for name, title, by in (
            ("packages", "name", Prefix()),
            ("documents", "title", rotation),
        )
    ]
    engine = create_engine(database_url)
    with engine.begin() as connection:
        database.install_rotation(connection, rotation)
        metadata.create_all(connection)
        for table, title in zip(tables, ("name", "title"), strict=True):
            rows = ({"id": number, title: f"n{number}", "section": "games"} for number in range(50))
            ingest(connection, table.c.embedding, rows, vectors=vectors)
        filters = ("section", "section in", "installed_kb >=", "installed_kb <=", "tags contains")
        for model, dims in (("static", 256), ("of_packages", 768)):
            folder = write_model(tmp_path / model, dims=dims)
            install_model(connection, model, load_token_model(str(folder)))
        functions = SqlFunctions(
            filters, group_by="source", words="lexemes", related=10, stored=True, model="of_packages"
        )
        install_functions(connection, tables[0].c.embedding, functions)
        add_query(connection, tables[0].c.embedding, "trains", vectors[7], question="a game with trains")
    engine.dispose()
    return database_url.replace("+psycopg", ""), str(rotation.id)


@pytest.mark.parametrize("page", [page.name for page in PAGES if any(b.language == "sql" for b in _blocks(page))])
def test_sql_runs(page: str, small: tuple[str, str]) -> None:
    """The SQL blocks of a page, one after the other, on one connection."""
    url, rotation = small
    with psycopg.connect(url, autocommit=True) as connection:
        for block in _blocks(DOCS / page):
            if block.language == "sql":
                statement = block.text.replace(ROTATION_IN_THE_TEXT, rotation)
                try:
                    connection.execute(statement.encode())
                except psycopg.Error as error:
                    pytest.fail(f"{block.page}:{block.line}: {error}")


def test_sql_for_analysts_finds_what_search_finds(small: tuple[str, str]) -> None:
    """Package 42 and document 42 are nearest to themselves, and the prefix statement agrees with `search`."""
    url, rotation = small
    copyable = [block for block in _blocks(DOCS / "sql.md") if block.text.startswith("WITH query")]
    assert len(copyable) == 2
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with psycopg.connect(url) as connection, engine.connect() as other:
        for block, name in zip(copyable, ("packages", "documents"), strict=True):
            rows = connection.execute(block.text.replace(ROTATION_IN_THE_TEXT, rotation).encode()).fetchall()
            column = reflect(other, f"{name}.embedding")
            table = column.table
            vector = other.execute(select(column).where(table.c.id == 42)).scalar_one()
            found = other.execute(search(select(table.c.id), column, vector, k=10, shortlist=100)).all()
            assert [row[0] for row in rows] == [row.id for row in found]
            assert rows[0][0] == 42
    engine.dispose()


def test_the_hybrid_statement_finds_what_search_hybrid_finds(small: tuple[str, str]) -> None:
    """Of the page that explains it: the same rows, scores and ranks."""
    url, _ = small
    declare, shown = [block.text for block in _blocks(DOCS / "hybrid.md") if block.language == "sql"]
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with psycopg.connect(url, autocommit=True) as connection, engine.connect() as other:
        connection.execute(declare.encode())
        rows = connection.execute(shown.encode()).fetchall()
        column = reflect(other, "packages.embedding")
        table = column.table
        vector = other.execute(select(column).where(table.c.id == 42)).scalar_one()
        words = Words(table.c.words, "n42 or n7", match="web", config="english", limit=100)
        asked = select(table.c.id, table.c.name).where(table.c.section == "games")
        found = other.execute(search_hybrid(asked, [Nearest(column, vector), words])).all()
    engine.dispose()
    assert [(row[0], row[1], *row[3:]) for row in rows] == [(row[0], row[1], *row[3:]) for row in found]
    assert [float(row[2]) for row in rows] == pytest.approx([row.score for row in found])
    assert [row.id for row in found if row.rank_2 is not None] == [42, 7]


def test_the_migrations_of_a_table_that_exists_run(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each migration in existing.md, up; what it makes is listed by `pgmrl columns` with a valid index. Then down."""
    rotation = _axes(256, 128)
    path = rotation.save(tmp_path / "rotations")
    monkeypatch.chdir(path.parent)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        database.downgrade(connection)
        for name in ("existing_posts", "existing_articles", "existing_notes", "existing_reviews"):
            connection.execute(text(f"CREATE TABLE {name} (id int PRIMARY KEY, embedding vector(256))"))
            connection.execute(
                text(f"INSERT INTO {name} SELECT n, array_fill(n, ARRAY[256])::vector FROM generate_series(1, 9) AS n")
            )
    down: list[Callable[[], None]] = []
    for block in _blocks(DOCS / "existing.md"):
        if block.language == "python" and "def upgrade" in block.text:
            names: dict[str, Any] = {"__file__": str(tmp_path / "versions" / "0002.py")}
            code = block.text.replace(ROTATION_IN_THE_TEXT, str(rotation.id))
            exec(compile(code, block.page, "exec", dont_inherit=True), names)  # noqa: S102 - our own page
            _migrate(engine, names["upgrade"])
            down += [names["downgrade"]] if "downgrade" in names else []
    with engine.connect() as connection:
        there = {(info.table_name, info.shortening): info.index_valid for info in database.columns(connection)}
    assert there == {
        ("existing_posts", "prefix"): True,
        ("existing_articles", "prefix"): True,
        ("existing_notes", "rotation"): True,
        ("existing_reviews_embedding", "prefix"): True,
    }
    for step in reversed(down):
        _migrate(engine, step)
    with engine.connect() as connection:
        assert database.columns(connection) == []
        assert database.installed_revision(connection) is None
    engine.dispose()


def _migrate(engine: Any, step: Callable[[], None]) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context):
            step()


# -- names and links -----------------------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference() -> None:
    """Of `pgmrl.__all__`, and the modules that are public as a whole."""
    listed = set(re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE))
    last = {name.rsplit(".", 1)[-1] for name in listed}
    missing = [name for name in pgmrl.__all__ if name not in last and name not in errors.__all__]
    assert not missing
    for module in ("database", "doctor", "embedders", "measure", "alembic", "errors"):
        assert f"pgmrl.{module}" in listed
    for name in listed:
        _resolve(name)


def _resolve(name: str) -> object:
    """What a `:::` line names; its home is a module, which a function of the same name in `pgmrl` may hide."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), attribute)


def test_every_error_is_explained() -> None:
    """Each class of pgmrl.errors is in errors.md's table, except those that only group."""
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    grouping = {"PgmrlError", "PgmrlWarning", "DatabaseError"}
    missing = [name for name in errors.__all__ if name not in grouping and f"| `{name}` |" not in page]
    assert not missing


def test_every_check_of_the_doctor_is_explained() -> None:
    """Each is in doctor.md's table with the worst it gives, and the page says how many there are."""
    page = (DOCS / "doctor.md").read_text(encoding="utf-8")
    missing = [check.name for check in CHECKS if f"| `{check.name}` | {check.severity} |" not in page]
    assert not missing
    assert f", {len(CHECKS)} checks" in page


def test_the_reference_of_commands_is_current() -> None:
    """`python docs/gen_cli.py` would change nothing."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert _generator().page(page) == page, "run: python docs/gen_cli.py"


def test_every_command_has_help_with_an_example() -> None:
    """Whoever adds a command writes both; and the page has it."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    names = []
    for name, command in _generator().commands():
        names.append(name)
        assert command.help, name
        assert re.search(r"Example: `.*pgmrl.*`", command.help), f"{name} has no example"
        assert f"### {name}\n" in page
        undescribed = [one.name for one in command.params if not getattr(one, "help", None)]
        assert not undescribed, f"{name}: {undescribed} without help"
    assert "pgmrl demo" in names
    assert "pgmrl local start" in names


def _anchors(page: Path) -> set[str]:
    anchors = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = re.match(r"#+ (.+)", line)
        if heading and not fenced:
            plain = re.sub(r"[^\w\s-]", "", heading.group(1)).strip().lower()
            anchors.add(re.sub(r"[\s-]+", "-", plain))
    return anchors


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_within_the_repository_resolve(page: Path) -> None:
    """Files and headings that a page links to exist."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(there), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    """And nothing else is."""
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES]
