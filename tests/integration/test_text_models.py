"""Models in the database: installed, removed, guarded; search by words; columns that the database embeds itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.exc import DBAPIError
from tokenizers import Tokenizer

from pgmrl import Embed, SqlFunctions, database, install_functions
from pgmrl.embedders.token_model import TokenModel, load_token_model
from pgmrl.errors import DefinitionError, MigrationError, NotMigrated
from pgmrl.functions.install import drop_functions
from pgmrl.functions.text_models import install_model, models, remove_model
from pgmrl.model.columns import Matryoshka
from pgmrl.model.embed import drop_embedding_triggers, keep_embedding_triggers
from pgmrl.model.shortening import Short
from tests.integration.test_dump import run
from tests.small_model import DIMS, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


WORDS = ["trains", "game", "game with trains", "aaaa", "x", "Ж", "日本", "a. b, c", "zzz trains"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small model."""
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def model(folder: Path) -> TokenModel:
    """The model."""
    return load_token_model(str(folder))


@pytest.fixture
def docs(connection: Connection, model: TokenModel) -> Table:
    """A table whose vectors the database embeds from title and body."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("body", Text),
        Column("found_by", TSVECTOR),
        Column("embedding", Matryoshka(DIMS, Short(4))),
    )
    table.create(connection)
    install_model(connection, "small", model)
    return table


def ask(connection: Connection, statement: str, **values: Any) -> list[Any]:
    """All rows of a statement."""
    return list(connection.execute(text(statement), values))


def refusal(connection: Connection, statement: str, **values: Any) -> str:
    """The message with which the server refuses a statement."""
    with pytest.raises(DBAPIError) as caught, connection.begin_nested():
        ask(connection, statement, **values)
    return str(caught.value.orig)


def vector(model: TokenModel, folder: Path, words: str) -> Any:
    """A text's vector by the tokenizers library and NumPy."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(words, add_special_tokens=False).ids
    mean = model.vectors[[number for number in ids if number]].astype(np.float64).mean(axis=0)
    return mean / np.linalg.norm(mean)


# -- the model ------------------------------------------------------------------------------------------------------


def test_installed_once_and_removed(connection: Connection, model: TokenModel) -> None:
    """The same again does nothing; another one of that name is refused; removed, nothing is left."""
    assert models(connection) == []
    assert install_model(connection, "small", model) is True
    assert install_model(connection, "small", model) is False
    (info,) = models(connection)
    assert (info.name, info.hash, info.dims, info.tokens) == ("small", model.hash, DIMS, len(model.tokens))
    assert remove_model(connection, "small") is True
    assert remove_model(connection, "small") is False
    for table in ("models", "tokens", "merges", "joints"):
        assert ask(connection, f"SELECT count(*) FROM pgmrl.{table}")[0][0] == 0


def test_another_model_of_the_same_name(connection: Connection, model: TokenModel, tmp_path: Path) -> None:
    """Vectors of two models cannot be compared."""
    install_model(connection, "small", model)
    other = load_token_model(str(write_model(tmp_path / "other", seed=1)))
    with pytest.raises(MigrationError, match=f"expected the hash {other.hash}, got {model.hash}"):
        install_model(connection, "small", other)
    assert install_model(connection, "other", other) is True
    assert [info.name for info in models(connection)] == ["other", "small"]


@pytest.mark.parametrize("name", ["", "a b", "a'b", "-x", "x" * 64])
def test_a_name_that_is_none(connection: Connection, model: TokenModel, name: str) -> None:
    """Before anything is written."""
    with pytest.raises(DefinitionError, match="expected a name of letters"):
        install_model(connection, name, model)


def test_without_the_schema(engine: Engine, model: TokenModel) -> None:
    """The remedy is named."""
    with engine.begin() as connection:
        database.downgrade(connection)
        with pytest.raises(NotMigrated):
            install_model(connection, "small", model)


def test_what_is_stored_is_checked(connection: Connection, model: TokenModel) -> None:
    """A trigger of somebody else's that changes what is stored."""
    connection.exec_driver_sql(
        "CREATE FUNCTION public.other() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.whole := NOT NEW.whole; RETURN NEW; END'"
    )
    connection.exec_driver_sql(
        "CREATE TRIGGER other BEFORE INSERT ON pgmrl.tokens FOR EACH ROW EXECUTE FUNCTION public.other()"
    )
    with pytest.raises(MigrationError, match=f"expected {model.hash}"):
        install_model(connection, "small", model)


def test_a_model_cannot_be_changed(connection: Connection, model: TokenModel) -> None:
    """Only removed."""
    install_model(connection, "small", model)
    for statement in ("UPDATE pgmrl.models SET hash = 'x'", "TRUNCATE pgmrl.models CASCADE"):
        assert "a model cannot be changed" in refusal(connection, statement)


def test_a_strangers_table(connection: Connection, model: TokenModel) -> None:
    """Who owns the tokens decides what everybody's questions mean."""
    connection.exec_driver_sql("CREATE ROLE model_stranger")
    connection.exec_driver_sql("ALTER TABLE pgmrl.tokens OWNER TO model_stranger")
    with pytest.raises(MigrationError, match=r"table pgmrl\.tokens belongs to model_stranger"):
        install_model(connection, "small", model)


def test_rights(connection: Connection, docs: Table) -> None:
    """Everybody embeds; only the owner of the schema changes models."""
    assert docs is not None
    connection.exec_driver_sql("CREATE ROLE model_reader")
    connection.exec_driver_sql("SET LOCAL ROLE model_reader")
    assert len(ask(connection, "SELECT pgmrl.embed_text('small', 'trains')")) == 1
    for statement in (
        "DELETE FROM pgmrl.models",
        "INSERT INTO pgmrl.joints VALUES ('small', 'zz')",
        "UPDATE pgmrl.tokens SET whole = false",
    ):
        assert "permission denied" in refusal(connection, statement)


# -- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [*WORDS, " ", "  two  spaces ", "<s>trains", "a<unk>b", "<0x41>", "▁trains", "aaaaaaa"]
)
def test_like_the_tokenizer(connection: Connection, model: TokenModel, folder: Path, words: str) -> None:
    """Merges in their order, bytes, special tokens, spaces."""
    install_model(connection, "small", model)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(words, add_special_tokens=False).ids
    found = ask(
        connection,
        "SELECT pgmrl.token_ids_v1('small', :words), CAST(pgmrl.embed_text('small', :words) AS real[])",
        words=words,
    )[0]
    assert list(found[0]) == [number for number in ids if number]
    np.testing.assert_allclose(found[1], vector(model, folder, words), atol=1e-5)


def test_texts_that_have_no_vector(connection: Connection, model: TokenModel) -> None:
    """An error that says why, never arbitrary rows."""
    install_model(connection, "small", model)
    assert ask(connection, "SELECT pgmrl.embed_text('small', NULL)")[0][0] is None
    embed = "SELECT pgmrl.embed_text('small', CAST(:words AS text))"
    assert "the text is empty and has a zero vector" in refusal(connection, embed, words="")
    assert "the text has a zero vector" in refusal(connection, embed, words="<unk>")
    assert "the text has 1048577 bytes" in refusal(connection, embed, words="a" * 1048577)
    assert "a word has 1001 characters: aaa" in refusal(connection, embed, words="a" * 1001)
    assert "there is no model 'it''s'" in refusal(connection, "SELECT pgmrl.embed_text('it''s', 'trains')")


# -- search by words ------------------------------------------------------------------------------------------------


def fill(connection: Connection, docs: Table) -> None:
    """Rows whose vectors the database embeds."""
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', '{title} {body}', 'small')")
    rows = [{"id": n, "title": words, "body": "tail" if n % 2 else None} for n, words in enumerate(WORDS)]
    connection.execute(docs.insert(), rows)
    connection.exec_driver_sql("UPDATE docs SET found_by = to_tsvector('simple', title)")


def test_search_by_words(connection: Connection, docs: Table) -> None:
    """Each function finds what the one for a vector finds."""
    fill(connection, docs)
    functions = SqlFunctions(filters=("body",), group_by="body", words="found_by", config="simple", model="small")
    installed = install_functions(connection, docs.c.embedding, functions)
    made = {"docs_search_text", "docs_search_diverse_text", "docs_search_groups_text", "docs_hybrid_text"}
    assert made <= set(installed.marker()["functions"])
    embedded = "pgmrl.embed_text('small', 'trains game')"
    for by_text, by_vector in [
        ("docs_search_text('trains game', k => 5)", f"docs_search({embedded}, k => 5)"),
        ("docs_search_text('trains game', body => 'tail')", f"docs_search({embedded}, body => 'tail')"),
        ("docs_search_text('trains game', exact => true)", f"docs_search({embedded}, exact => true)"),
        ("docs_search_diverse_text('trains game', 5, 0.3)", f"docs_search_diverse({embedded}, 5, 0.3)"),
        ("docs_search_groups_text('trains game', 2, 3)", f"docs_search_groups({embedded}, 2, 3)"),
        (
            "docs_hybrid_text('trains game', 5, match => 'any', body => 'tail')",
            f"docs_hybrid({embedded}, 'trains game', 5, match => 'any', body => 'tail')",
        ),
    ]:
        rows = ask(connection, f"SELECT * FROM {by_text} ORDER BY rank")
        assert rows
        assert rows == ask(connection, f"SELECT * FROM {by_vector} ORDER BY rank")
    assert "words is NULL" in refusal(connection, "SELECT * FROM docs_search_text(NULL)")
    assert "words is empty" in refusal(connection, "SELECT * FROM docs_search_text(E' \\t')")
    injected = "'); DROP TABLE docs; $$ -- \""
    assert len(ask(connection, "SELECT * FROM docs_search_text(:words)", words=injected)) == len(WORDS)


def test_no_arbitrary_rows(connection: Connection, docs: Table) -> None:
    """Words of which no token has a vector, a model that is gone past its guard, a caller without rights."""
    fill(connection, docs)
    install_functions(connection, docs.c.embedding, SqlFunctions(model="small"))
    search = "SELECT * FROM docs_search_text(:words)"
    assert "the text has a zero vector" in refusal(connection, search, words="<unk>")
    connection.exec_driver_sql("CREATE ROLE words_reader")
    connection.exec_driver_sql("SET LOCAL ROLE words_reader")
    assert "permission denied for table docs" in refusal(connection, search, words="trains")
    connection.exec_driver_sql("RESET ROLE")
    connection.exec_driver_sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
    connection.exec_driver_sql("GRANT SELECT ON docs TO words_reader")
    connection.exec_driver_sql("SET LOCAL ROLE words_reader")
    assert "permission denied for function docs_search_text" in refusal(connection, search, words="trains")
    connection.exec_driver_sql("RESET ROLE")
    connection.exec_driver_sql("ALTER TABLE pgmrl.models DISABLE TRIGGER guard")
    connection.exec_driver_sql("DELETE FROM pgmrl.models")
    assert "there is no model 'small' in this database" in refusal(connection, search, words="trains")
    insert = "INSERT INTO docs (id, title) VALUES (100, 'trains')"
    assert "there is no model 'small' in this database" in refusal(connection, insert)


def test_a_column_without_a_model(connection: Connection, docs: Table) -> None:
    """The functions are not made; declared later, they are; another column's dimensions do not fit."""
    install_functions(connection, docs.c.embedding)
    assert "docs_search_text" in refusal(connection, "SELECT * FROM docs_search_text('trains')")
    with pytest.raises(MigrationError, match="there is no model 'other' in this database"):
        install_functions(connection, docs.c.embedding, SqlFunctions(model="other"))
    wide = Table("wide", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(16, Short(4))))
    wide.create(connection)
    with pytest.raises(MigrationError, match=r"the vectors of wide.e are halfvec\(16\)"):
        install_functions(connection, wide.c.e, SqlFunctions(model="small"))
    install_functions(connection, docs.c.embedding, SqlFunctions(model="small"))
    assert ask(connection, "SELECT * FROM docs_search_text('trains')") == []


def test_a_model_in_use_stays(connection: Connection, docs: Table) -> None:
    """Functions and triggers that name it are named; pgmrl's schema stays as well."""
    install_functions(connection, docs.c.embedding, SqlFunctions(model="small"))
    with pytest.raises(MigrationError, match=r"in use by the functions public\.docs_"):
        remove_model(connection, "small")
    drop_functions(connection, docs.c.embedding)
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', '{title}', 'small')")
    with pytest.raises(MigrationError, match=r"in use by the trigger that keeps (public\.)?docs"):
        remove_model(connection, "small")
    with pytest.raises(DBAPIError, match=r"in use by the triggers of (public\.)?docs"), connection.begin_nested():
        database.downgrade(connection)
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', NULL)")
    assert remove_model(connection, "small") is True


def test_row_level_security(connection: Connection, docs: Table) -> None:
    """Words find the caller's own rows, all of them."""
    fill(connection, docs)
    install_functions(connection, docs.c.embedding, SqlFunctions(model="small"))
    connection.exec_driver_sql("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    connection.exec_driver_sql("CREATE POLICY tails ON docs USING (body = 'tail')")
    connection.exec_driver_sql("CREATE ROLE tail_reader")
    connection.exec_driver_sql("GRANT SELECT ON docs TO tail_reader")
    connection.exec_driver_sql("SET LOCAL ROLE tail_reader")
    rows = ask(connection, "SELECT id FROM docs_search_text('trains', 20)")
    assert sorted(row.id for row in rows) == [n for n in range(len(WORDS)) if n % 2]


# -- columns that the database embeds ---------------------------------------------------------------------------------


def test_kept_whoever_writes(connection: Connection, docs: Table, model: TokenModel, folder: Path) -> None:
    """Inserted, updated, emptied; a vector that somebody writes is computed again, and so is the short one."""
    fill(connection, docs)

    def stored(number: int) -> Any:
        return ask(connection, "SELECT CAST(CAST(embedding AS vector) AS real[]) FROM docs WHERE id = :n", n=number)[0][
            0
        ]

    def expect(number: int, words: str) -> None:
        np.testing.assert_allclose(stored(number), vector(model, folder, words), atol=2e-3)

    expect(1, "game tail")
    expect(2, "game with trains ")
    connection.exec_driver_sql("UPDATE docs SET body = 'trains' WHERE id = 1")
    expect(1, "game trains")
    connection.exec_driver_sql("UPDATE docs SET embedding = '[1,0,0,0,0,0,0,0]' WHERE id = 1")
    expect(1, "game trains")
    connection.exec_driver_sql("UPDATE docs SET title = ' ', body = NULL WHERE id = 1")
    assert stored(1) is None
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', '{title}', 'small')")
    connection.exec_driver_sql("UPDATE docs SET embedding = NULL")
    expect(3, "aaaa")
    assert (
        ask(connection, "SELECT count(*) FROM docs WHERE (embedding IS NULL) <> (embedding_short_4 IS NULL)")[0][0] == 0
    )
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', NULL)")
    connection.exec_driver_sql("UPDATE docs SET title = 'x' WHERE id = 3")
    expect(3, "aaaa")
    assert ask(connection, "SELECT FROM pg_proc WHERE proname LIKE 'zt\\_pgmrl%'") == []


@pytest.mark.usefixtures("docs")
def test_kept_for_a_writer_without_rights(connection: Connection) -> None:
    """INSERT on the table is enough; the path of the writer means nothing."""
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', '{title}', 'small')")
    connection.exec_driver_sql("CREATE ROLE docs_writer")
    connection.exec_driver_sql("GRANT INSERT ON docs TO docs_writer")
    connection.exec_driver_sql("SET LOCAL ROLE docs_writer")
    connection.exec_driver_sql("SET LOCAL search_path = ''")
    connection.exec_driver_sql("INSERT INTO public.docs (id, title) VALUES (1, 'trains')")
    connection.exec_driver_sql("RESET ROLE")
    assert ask(connection, "SELECT embedding IS NOT NULL FROM public.docs")[0][0]


def test_a_column_that_was_renamed(connection: Connection, docs: Table) -> None:
    """The next write says so; called again, it goes on."""
    fill(connection, docs)
    connection.exec_driver_sql("ALTER TABLE docs RENAME title TO name")
    assert "docs was renamed" in refusal(connection, "INSERT INTO docs (id, name) VALUES (100, 'x')")
    connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', '{name}', 'small')")
    connection.exec_driver_sql("INSERT INTO docs (id, name) VALUES (100, 'x')")


@pytest.mark.parametrize("template", ["", "title", "{title", "{}", "title}", "{{title}}"])
def test_a_template_that_is_none(connection: Connection, docs: Table, template: str) -> None:
    """Before anything is made."""
    assert docs is not None
    keep = "SELECT pgmrl.keep_text('docs', 'embedding', :template, 'small')"
    assert "the template is" in refusal(connection, keep, template=template)


def test_what_cannot_be_kept(connection: Connection, docs: Table) -> None:
    """Unknown models and columns, other dimensions, a function of a stranger's."""
    assert docs is not None
    keep = "SELECT pgmrl.keep_text('docs', :column, :template, :model)"
    values = {"column": "embedding", "template": "{title}", "model": "small"}
    assert "there is no model 'x'" in refusal(connection, keep, **{**values, "model": "x"})
    assert "no column title of type vector(8)" in refusal(connection, keep, **{**values, "column": "title"})
    assert "no column embedding_short_4" in refusal(connection, keep, **{**values, "column": "embedding_short_4"})
    assert "no column nowhere" in refusal(connection, keep, **{**values, "template": "{title} {nowhere}"})
    assert "no column embedding_short_4" in refusal(connection, keep, **{**values, "template": "{embedding_short_4}"})
    connection.exec_driver_sql("CREATE ROLE keep_stranger")
    connection.exec_driver_sql(
        "CREATE FUNCTION zt_pgmrl_docs_embedding() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    )
    connection.exec_driver_sql("ALTER FUNCTION zt_pgmrl_docs_embedding() OWNER TO keep_stranger")
    connection.exec_driver_sql("CREATE ROLE docs_owner")
    connection.exec_driver_sql("ALTER TABLE docs OWNER TO docs_owner")
    assert "belongs to keep_stranger" in refusal(connection, keep, **values)


def test_dump_and_restore(engine: Engine, server: Any, tmp_path: Path, model: TokenModel) -> None:
    """Model, functions and trigger on the other side, with errors fatal."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("embedding", Matryoshka(DIMS, Short(4))),
    )
    with engine.begin() as connection:
        table.create(connection)
        install_model(connection, "small", model)
        connection.exec_driver_sql("SELECT pgmrl.keep_text('docs', 'embedding', '{title}', 'small')")
        install_functions(connection, table.c.embedding, SqlFunctions(model="small"))
        connection.execute(table.insert(), [{"id": n, "title": words} for n, words in enumerate(WORDS)])
        before = ask(connection, "SELECT * FROM docs_search_text('trains')")
    for restored in _restored(engine, server, tmp_path):
        with restored.begin() as connection:
            assert ask(connection, "SELECT * FROM docs_search_text('trains')") == before
            assert install_model(connection, "small", model) is False
            assert ask(connection, "SELECT pgmrl.model_hash_v1('small')")[0][0] == model.hash
            connection.exec_driver_sql("INSERT INTO docs (id, title) VALUES (100, 'trains')")
            assert 100 in {row.id for row in ask(connection, "SELECT id FROM docs_search_text('trains', 2)")}


def _restored(engine: Engine, server: Any, tmp_path: Path) -> Iterator[Engine]:
    name = f"{engine.url.database}_restored"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    run("pg_dump", "-Fc", "-f", tmp_path / "dump", server.url(engine.url.database))
    run("pg_restore", "--exit-on-error", "-d", server.url(name), tmp_path / "dump")
    with database.connect(server.url(name)) as restored:
        yield restored


def test_a_column_is_kept_in_one_way(connection: Connection, docs: Table) -> None:
    """By the database's own model or by the workers of `pgmrl embed`; the other is refused."""
    workers = keep_embedding_triggers(Embed("title", by="static"), None, docs.name, "embedding")
    own = "SELECT pgmrl.keep_text('docs', 'embedding', :template, 'small')"
    ask(connection, own, template="{title}")
    assert "column embedding of public.docs is kept by the database itself" in refusal(connection, workers)
    ask(connection, own, template=None)
    ask(connection, workers)
    assert "column embedding of public.docs is kept by the workers of `pgmrl embed`" in refusal(
        connection, own, template="{title}"
    )
    ask(connection, drop_embedding_triggers(None, docs.name, "embedding"))
    ask(connection, own, template="{title}")
