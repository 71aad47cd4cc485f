"""Short vectors that no column holds: searches, measurements and checks go through the index on their expression."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    Column,
    Computed,
    Connection,
    Engine,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from pgmrl import (
    Nearest,
    SqlFunctions,
    Words,
    add_short,
    add_side_table,
    assert_index_used,
    check_schema,
    compile_sql,
    database,
    explain,
    ingest,
    install_functions,
    load_settings,
    more_like_this,
    reflect,
    search,
    search_diverse,
    search_funnel,
    search_groups,
    search_hybrid,
    search_many,
)
from pgmrl.database.settings import Setting, setting_of, store_setting
from pgmrl.doctor import doctor
from pgmrl.errors import DefinitionError, MigrationError, NotMigrated, PgmrlError
from pgmrl.measure import measure_recall, sampled_queries
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Prefix, Short
from pgmrl.online.reshape import reshape
from pgmrl.tune import tune
from pgmrl.tune.applied_migration import migration
from pgmrl.tune.applying import model
from tests.cli import failure, ok
from tests.databases import connected, shared_database, vacuum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgmrl import local
    from tests.corpus import Corpus
else:
    Corpus = Any

ROWS, DIMS, SHORT = 6_000, 256, 64
INDEX = "computed_embedding_expression_64_hnsw"
Query = "Callable[[Table], Select[Any]]"


def passages(name: str, *, stored: bool, metadata: MetaData | None = None, **options: Any) -> Table:
    """A table as an application has it, with pgvector's own type."""
    table = Table(
        name,
        metadata or MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("package", Text),
        Column("text", Text),
        Column("words", TSVECTOR, Computed("to_tsvector('english'::regconfig, coalesce(text, ''))", persisted=True)),
        Column("embedding", VECTOR(DIMS)),
    )
    add_short(table.c.embedding, Short(SHORT), stored=stored, **options)
    return table


@pytest.fixture(scope="module")
def both(server: local.LocalServer, corpus: Corpus) -> Iterator[tuple[Engine, Table, Table]]:
    """The same rows with a short column, and without one; tests only read them."""
    columns = passages("columns", stored=True), passages("computed", stored=False)

    def fill(engine: Engine) -> None:
        with engine.begin() as connection:
            for table in columns:
                table.create(connection)
                rows = (
                    {"id": n, "package": passage["package"], "text": passage["text"], "embedding": corpus.documents[n]}
                    for n, passage in enumerate(corpus.passages[:ROWS])
                )
                ingest(connection, table.c.embedding, rows)
        vacuum(engine)

    with connected(shared_database(server, "expression", fill)) as engine:
        yield engine, *columns


@contextmanager
def exact_shortlists(engine: Engine) -> Iterator[Connection]:
    """Rows are sorted by their short vectors: no index decides what is in a shortlist."""
    with engine.connect() as connection:
        connection.execute(text("SET enable_indexscan = off"))
        yield connection


def shapes(corpus: Corpus) -> dict[str, Callable[[Table], Select[Any]]]:
    """Every shape a search can have, of a table."""
    one, two = corpus.queries[:2]
    package = corpus.passages[0]["package"]

    def chosen(table: Table) -> Select[Any]:
        return select(table.c.id)

    return {
        "search": lambda t: search(chosen(t), t.c.embedding, one),
        "filtered": lambda t: search(chosen(t).where(t.c.package == package), t.c.embedding, one),
        "alias": lambda t: search(select((a := t.alias()).c.id).where(a.c.id > 100), a.c.embedding, one),
        "page": lambda t: search(chosen(t), t.c.embedding, one, shortlist=60, offset=20),
        "expression": lambda t: search(chosen(t), t.c.embedding, _average(t)),
        "groups": lambda t: search_groups(chosen(t), t.c.embedding, one, t.c.package, k=5),
        "diverse": lambda t: search_diverse(chosen(t), t.c.embedding, one, k=5),
        "funnel": lambda t: search_funnel(chosen(t), t.c.embedding, one, ((128, 50),)),
        "many": lambda t: search_many(chosen(t), t.c.embedding, [one, two], k=5),
        "like": lambda t: search(chosen(t), t.c.embedding, more_like_this(t.c.embedding, [3, 4], unlike=[9])),
        "hybrid": lambda t: search_hybrid(
            chosen(t), [Nearest(t.c.embedding, one), Words(t.c.words, "file", config="english")]
        ),
    }


def _average(table: Table) -> Any:
    rows = select(func.avg(table.c.embedding)).where(table.c.id.in_([3, 4]))
    return rows.scalar_subquery()


SHAPES = (
    "search",
    "filtered",
    "alias",
    "page",
    "expression",
    "groups",
    "diverse",
    "funnel",
    "many",
    "like",
    "hybrid",
)


@pytest.mark.parametrize("name", SHAPES)
def test_of_an_exact_shortlist_the_rows_are_those_of_a_column(
    both: tuple[Engine, Table, Table], corpus: Corpus, name: str
) -> None:
    """Whatever the search's shape."""
    engine, stored, computed = both
    shape: Any = shapes(corpus)[name]
    with exact_shortlists(engine) as connection:
        expected = connection.execute(shape(stored)).all()
        assert connection.execute(shape(computed)).all() == expected
        assert expected


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "filtered"])
def test_the_index_serves_every_shape(both: tuple[Engine, Table, Table], corpus: Corpus, name: str) -> None:
    """The statement's expression is the index's."""
    engine, _, computed = both
    shape: Any = shapes(corpus)[name]
    with engine.connect() as connection:
        assert_index_used(connection, shape(computed))
        explanation = explain(connection, shape(computed))
        assert INDEX in str(explanation)


def test_the_index_serves_a_generic_plan(both: tuple[Engine, Table, Table], corpus: Corpus) -> None:
    """A prepared statement whose plan knows no parameter: the expression has literals only."""
    engine, _, computed = both
    statement = search(select(computed.c.id), computed.c.embedding, bindparam("query"))
    sent, _ = compile_sql(search(select(computed.c.id), computed.c.embedding, corpus.queries[0]))
    assert f"ORDER BY (subvector(computed.embedding, 1, {SHORT})::halfvec({SHORT})) <=> " in sent
    with engine.connect() as connection:
        connection.execute(text("SET plan_cache_mode = force_generic_plan"))
        assert_index_used(connection, statement, {"query": corpus.queries[0]})


def test_the_recall_is_that_of_a_column(both: tuple[Engine, Table, Table]) -> None:
    """Through the index: real queries, the same build parameters."""
    engine, stored, computed = both
    found = {}
    with engine.connect() as connection:
        queries = sampled_queries(connection, stored.c.embedding, 100)
        for table in (stored, computed):
            recall = measure_recall(connection, table.c.embedding, queries=queries, shortlist=100, seconds=60)
            assert recall.index == f"{table.name}_{attachment_of(table.c.embedding).short}_hnsw"
            found[table.name] = recall.recall.mean
    assert found["computed"] == pytest.approx(found["columns"], abs=0.02)  # two builds
    assert found["computed"] > 0.9


@pytest.mark.parametrize(
    ("metric", "kind", "type_"),
    [
        ("cosine", VECTOR, "halfvec"),
        ("cosine", HALFVEC, "halfvec"),
        ("cosine", VECTOR, "vector"),
        ("cosine", HALFVEC, "bit"),
        ("l2", VECTOR, "halfvec"),
        ("l2", HALFVEC, "vector"),
        ("inner_product", VECTOR, "halfvec"),
        ("inner_product", VECTOR, "bit"),
    ],
)
def test_every_type_and_metric(engine: Engine, corpus: Corpus, metric: Any, kind: Any, type_: Any) -> None:
    """The index that create_all makes is the search's, and finds what the rule says, in any schema of pgvector's."""
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Ext "'))
        connection.execute(text('ALTER EXTENSION vector SET SCHEMA "Ext "'))
    metadata = MetaData()
    table = Table("Odd table", metadata, Column("id", Integer, primary_key=True), Column('a "b", c', kind(DIMS)))
    column = table.c['a "b", c']
    add_short(column, Short(SHORT, type=type_), metric=metric, stored=False, vector_schema="Ext ")
    definition = attachment_of(column).definition
    documents = corpus.documents[:1_000] * np.linspace(0.5, 2, 1_000, dtype=np.float32)[:, np.newaxis]
    with engine.begin() as connection:
        connection.execute(text('SET LOCAL search_path = public, "Ext "'))  # pgvector's own type names no schema
        metadata.create_all(connection)
        ingest(connection, column, ({"id": n, column.name: row} for n, row in enumerate(documents)))
    with engine.connect() as connection:
        statement = search(select(table.c.id), column, corpus.queries[0], shortlist=30)
        assert_index_used(connection, statement)
        (info,) = database.columns(connection)
        assert (info.kept_by, info.short_column, info.index_valid) == ("index", attachment_of(column).short, True)
        assert check_schema(connection, column) == info
        connection.execute(text("SET enable_indexscan = off"))
        found = connection.execute(statement).scalars().all()
    shorts, query = definition.shorten(documents), definition.shorten(corpus.queries[:1])[0]
    near = np.argsort(_distances(shorts, query, metric, type_), kind="stable")[:30]
    full = _distances(definition.stored(documents)[near], definition.stored(corpus.queries[:1])[0], metric, "vector")
    expected = near[np.argsort(full, kind="stable")[:10]].tolist()
    if type_ == "bit":  # of rows as many bits away the server takes any
        assert len(set(found) & set(expected)) >= 5
    else:
        assert found == expected


def _distances(rows: Any, query: Any, metric: str, type_: str) -> Any:
    if type_ == "bit":
        return (rows != query).sum(axis=1)
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return np.linalg.norm(rows - query, axis=1)
    products = rows @ query
    return -products if metric == "inner_product" else -products / np.linalg.norm(rows, axis=1)


# -- what is around a search ---------------------------------------------------------------------------------------


def readme_index(connection: Connection, name: str = "by_hand", opclass: str = "halfvec_cosine_ops") -> None:
    """As pgvector's README has it, in lower case, without options and with a name of its own."""
    connection.execute(
        text(f"CREATE INDEX {name} ON passages USING hnsw ((subvector(embedding, 1, 64)::halfvec(64)) {opclass})")
    )


@pytest.fixture
def loaded(engine: Engine, corpus: Corpus) -> Iterator[Connection]:
    """1,000 rows of `passages` in a plain VECTOR column, without any index."""
    metadata = MetaData()
    table = Table(
        "passages",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("package", Text),
        Column("embedding", VECTOR(DIMS)),
    )
    with engine.connect() as connection:
        metadata.create_all(connection)
        rows = [
            {"id": n, "package": corpus.passages[n]["package"], "embedding": corpus.documents[n]} for n in range(1_000)
        ]
        connection.execute(table.insert(), rows)
        connection.commit()
        yield connection


def declared(**options: Any) -> Column[Any]:
    """The same table as a model declares it, with short vectors that are not stored."""
    table = Table(
        "passages", MetaData(), Column("id", Integer, primary_key=True), Column("package", Text), _vector_column()
    )
    add_short(table.c.embedding, Short(SHORT), stored=False, **options)
    return table.c.embedding


def _vector_column() -> Column[Any]:
    return Column("embedding", VECTOR(DIMS))


def test_an_index_made_by_hand_is_found_and_used(loaded: Connection, corpus: Corpus) -> None:
    """By check_schema, reflect, the catalogue and the planner, whatever its name."""
    with pytest.raises(NotMigrated, match=r"passages has no HNSW index on \(\(subvector\(embedding, 1, 64\)::halfvec"):
        check_schema(loaded, declared())
    readme_index(loaded)
    info = check_schema(loaded, declared())
    assert info is not None
    assert (info.index_name, info.short_dims, info.kept_by, info.metric) == ("by_hand", SHORT, "index", "cosine")
    column = reflect(loaded, "passages.embedding")
    assert attachment_of(column).definition == attachment_of(declared()).definition
    for searched in (column, declared()):
        statement = search(select(searched.table.c.id), searched, corpus.queries[0])
        assert_index_used(loaded, statement)
        assert "by_hand" in str(explain(loaded, statement))
    with pytest.raises(NotMigrated, match="expected operator class halfvec_l2_ops"):
        check_schema(loaded, declared(metric="l2"))


@pytest.mark.parametrize(
    "expression",
    [
        "(l2_normalize(subvector(embedding, 1, 64))::halfvec(64)) halfvec_cosine_ops",
        "(subvector(embedding, 2, 64)::halfvec(64)) halfvec_cosine_ops",
        "(subvector(l2_normalize(embedding), 1, 64)::halfvec(64)) halfvec_cosine_ops",
        "(subvector(embedding, 1, 64)::halfvec(64)) halfvec_l1_ops",
        "(subvector(embedding::halfvec, 1, 64)::halfvec(64)) halfvec_cosine_ops",
        "(embedding::halfvec(256)) halfvec_cosine_ops",
    ],
)
def test_another_expression_is_another_index(loaded: Connection, expression: str) -> None:
    """What a search would not be served by is not taken for it."""
    loaded.execute(text(f"CREATE INDEX other ON passages USING hnsw ({expression})"))
    assert not database.columns(loaded)
    with pytest.raises(NotMigrated, match="no HNSW index on"):
        check_schema(loaded, declared())


def test_a_partial_index_is_not_one_of_all_rows(loaded: Connection) -> None:
    """It is the column's, and what is declared is not there."""
    expression = "(subvector(embedding, 1, 64)::halfvec(64)) halfvec_cosine_ops"
    loaded.execute(
        text(f"CREATE INDEX other ON passages USING hnsw ({expression}) WHERE id > 7 AND embedding <> '[1]'")
    )
    (info,) = database.columns(loaded)
    assert info.index_name == "other"
    assert info.index_predicate is not None
    with pytest.raises(NotMigrated, match="only a partial HNSW index"):
        check_schema(loaded, declared())


def test_what_is_wrong_with_the_index_is_said(loaded: Connection, corpus: Corpus) -> None:
    """By explain and the doctor: it is of another metric, then INVALID, then in order."""
    column = declared()
    statement = search(select(column.table.c.id), column, corpus.queries[0])
    assert "there is no HNSW index on passages.embedding_expression_64" in str(explain(loaded, statement))
    readme_index(loaded, opclass="halfvec_l2_ops")
    assert "by_hand has the operator class halfvec_l2_ops" in str(explain(loaded, statement))
    problems = {finding.check: finding for finding in doctor(loaded, column).findings}
    assert "searches by cosine need halfvec_cosine_ops" in problems["index-operator-class"].message
    create = problems["index-operator-class"].remedy.partition(";")[0].replace(" CONCURRENTLY", "")
    loaded.execute(text("DROP INDEX by_hand"))
    loaded.execute(text(create))  # the remedy as it is printed
    assert check_schema(loaded, column) is not None
    loaded.execute(text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('by_hand')"))
    loaded.execute(text("UPDATE passages SET embedding = array_fill(0, ARRAY[256])::vector WHERE id < 3"))
    loaded.execute(text("ANALYZE passages"))
    findings = doctor(loaded, column).findings
    assert not [finding for finding in findings if finding.check.startswith(("index", "short", "sync"))]
    zero = next(finding for finding in findings if finding.check == "rows-unfindable")
    assert zero.values["kind"] == "zero"


def test_it_is_measured_and_tuned(loaded: Connection) -> None:
    """`recall`, the stored setting, and tuning, whose choice of a prefix is again an index and no column."""
    readme_index(loaded)
    loaded.commit()
    column = declared()
    assert measure_recall(loaded, column, queries=20).index == "by_hand"
    store_setting(loaded, column, Setting(k=10, shortlist=50, ef_search=60))
    load_settings(loaded, column)
    assert setting_of(column) is not None
    loaded.commit()
    limits: dict[str, Any] = {"queries": 60, "by": ("prefix",), "types": ("halfvec",), "finalists": 1}
    tuned = tune(loaded, column, 0.5, dims=(32,), optimize_for="size", **limits)
    assert tuned.choice is not None
    written = migration(loaded, column, tuned)
    assert written is not None
    assert "op.create_short_index('passages', 'embedding', Definition.of(256, Short(32)" in written
    assert "stored=False" in written
    assert "add_short" not in written
    assert model(column, tuned).endswith("stored=False)")


def test_sql_functions_search_through_it(loaded: Connection, corpus: Corpus) -> None:
    """With a filter, and rows like another one; each call is served by the index."""
    readme_index(loaded)
    table = declared().table
    install_functions(loaded, table.c.embedding, SqlFunctions(filters=("package",)))
    loaded.commit()
    query = corpus.queries[0].tolist()
    expected = loaded.execute(search(select(table.c.id), table.c.embedding, query)).scalars().all()
    called = "SELECT id FROM passages_search(CAST(:query AS vector)) ORDER BY rank"
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'by_hand'"
    force = "SELECT pg_stat_force_next_flush()"
    loaded.execute(text(force))
    loaded.commit()
    before = loaded.execute(text(scans)).scalar_one()
    assert loaded.execute(text(called), {"query": str(query)}).scalars().all() == expected
    loaded.execute(text(force))
    loaded.commit()
    assert loaded.execute(text(scans)).scalar_one() > before
    like = search(select(table.c.id), table.c.embedding, more_like_this(table.c.embedding, [3]))
    similar = loaded.execute(text("SELECT id FROM passages_similar(3) ORDER BY rank")).scalars().all()
    assert similar == loaded.execute(like).scalars().all()
    assert not [f for f in doctor(loaded).findings if f.check.startswith("function")]


def test_the_health_view_and_the_command_line_know_it(
    loaded: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pgmrl columns`, `recall`, `reshape`, and the view for dashboards."""
    readme_index(loaded)
    loaded.commit()
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert "embedding_expression_64" in ok("columns")
    assert "recall@10" in ok("recall", "passages.embedding", "--sample", "20")
    health = loaded.execute(text("SELECT short_column, index_state FROM pgmrl.health")).one()
    assert tuple(health) == ("embedding_expression_64", "valid")
    loaded.rollback()
    other = failure("reshape", "start", "passages.embedding", "--short-dims", "32")
    assert "is not stored (stored=False), so there is no column to reshape" in str(other)
    ok("reshape", "start", "passages.embedding", "--m", "24", "--ef-construction", "120")
    options = loaded.execute(
        text("SELECT reloptions FROM pg_class WHERE relname = 'passages_embedding_expression_64_hnsw'")
    ).scalar_one()
    assert set(options) == {"m=24", "ef_construction=120"}


def test_a_reshape_to_a_column(loaded: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column with a name comes beside the index, which `contract` drops."""
    readme_index(loaded)
    loaded.commit()
    monkeypatch.setenv("DATABASE_URL", database_url)
    ok("reshape", "start", "passages.embedding", "--short-dims", "32", "--name", "short")
    assert {info.short_column for info in database.columns(loaded)} == {"short", "embedding_expression_64"}
    loaded.rollback()
    ok("reshape", "contract", "passages.embedding", "--wait-seconds", "0")
    assert {info.short_column for info in database.columns(loaded)} == {"short"}


def test_a_side_table_without_a_short_column(loaded: Connection, corpus: Corpus) -> None:
    """Its copy of the vectors is searched through an expression too."""
    table = Table("passages", MetaData(), Column("id", Integer, primary_key=True), _vector_column())
    side = add_side_table(table.c.embedding, Short(SHORT), stored=False)
    side.create(loaded)
    statement = search(select(table.c.id), table.c.embedding, corpus.queries[0])
    assert_index_used(loaded, statement)
    assert set(side.c.keys()) == {"id", "embedding"}
    assert check_schema(loaded, table.c.embedding) is not None


def test_reflecting_prefers_a_column_with_a_valid_index(loaded: Connection) -> None:
    """A column costs a search less than an expression."""
    readme_index(loaded)
    stored = Table("passages", MetaData(), Column("id", Integer, primary_key=True), _vector_column())
    add_short(stored.c.embedding, Short(32))
    name = attachment_of(stored.c.embedding).short
    value = attachment_of(stored.c.embedding).definition.sql("embedding")
    loaded.execute(text(f"ALTER TABLE passages ADD {name} halfvec(32) GENERATED ALWAYS AS ({value}) STORED"))
    assert attachment_of(reflect(loaded, "passages.embedding")).short == "embedding_expression_64"
    loaded.execute(text(f"CREATE INDEX ON passages USING hnsw ({name} halfvec_cosine_ops)"))
    assert attachment_of(reflect(loaded, "passages.embedding")).short == name


def test_a_partitioned_table(engine: Engine, corpus: Corpus) -> None:
    """Each partition's index serves its part."""
    table = Table(
        "parts",
        MetaData(),
        Column("id", Integer, primary_key=True),
        _vector_column(),
        postgresql_partition_by="RANGE (id)",
    )
    add_short(table.c.embedding, Short(SHORT), stored=False)
    with engine.begin() as connection:
        table.create(connection)
        for n in range(2):
            connection.execute(
                text(f"CREATE TABLE part_{n} PARTITION OF parts FOR VALUES FROM ({500 * n}) TO ({500 * n + 500})")
            )
        ingest(connection, table.c.embedding, ({"id": n, "embedding": corpus.documents[n]} for n in range(1_000)))
        connection.execute(text("ANALYZE parts"))
        (info,) = database.columns(connection)
        assert (info.table_name, info.kept_by) == ("parts", "index")
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        assert_index_used(connection, search(select(table.c.id), table.c.embedding, corpus.queries[0]))


# -- what cannot be ------------------------------------------------------------------------------------------------


def test_only_a_prefix_and_no_name() -> None:
    """One error, where the model is declared."""
    with pytest.raises(DefinitionError, match="stored=False with a rotation: expected by=Prefix"):
        declared_as(Short(4, by=Rotation("r0123456789ab")))
    with pytest.raises(DefinitionError, match="stored=False with name='short': there is no column to name"):
        declared_as(Short(4, name="short"))


def declared_as(short: Short) -> None:
    """A model with this short vector, not stored."""
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), _vector_column())
    add_short(table.c.embedding, short, stored=False)


def test_a_query_that_is_zero_in_its_prefix_is_refused(corpus: Corpus) -> None:
    """As with a column; here half precision decides, since nothing is scaled."""
    query = corpus.queries[0].copy()
    query[:SHORT] = 1e-9
    with pytest.raises(PgmrlError, match="zero in its leading 64 dimensions"):
        search(select((column := declared()).table), column, query)


def test_a_row_that_half_precision_cannot_hold_is_refused(loaded: Connection) -> None:
    """Before it is sent: a column would have scaled it."""
    readme_index(loaded)
    row = np.ones(DIMS, np.float32)
    row[0] = 70_000
    with pytest.raises(PgmrlError, match="beyond half precision's 65504"):
        ingest(loaded, declared(), [{"id": 5_000, "embedding": row}])


def test_the_type_copies_and_attaches_without_a_column() -> None:
    """In a mixin's copy and in another MetaData: one index, no second column."""
    type_ = Matryoshka(8, Short(4), stored=False)
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", type_.copy()))
    assert list(table.c.keys()) == ["id", "embedding"]
    assert [index.name for index in table.indexes] == ["t_embedding_expression_4_hnsw"]
    copied = table.to_metadata(MetaData())
    assert [index.name for index in copied.indexes] == ["t_embedding_expression_4_hnsw"]
    assert list(copied.c.keys()) == ["id", "embedding"]
    assert attachment_of(copied.c.embedding).definition.has_column is False


def test_a_reshape_names_the_operations(loaded: Connection) -> None:
    """Another prefix without a column is another index."""
    readme_index(loaded)
    with pytest.raises(MigrationError, match=r"op\.create_short_index with the new definition"):
        reshape(loaded, "passages", "embedding", dims=32, by=Prefix())
