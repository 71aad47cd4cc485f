"""A table that has a pgvector column, searched in two stages: by one index, a prefix, a rotation, a side table.

    python examples/existing.py

Runs against DATABASE_URL, or an embedded PostgreSQL where that is not set. It makes (and makes anew) the tables
`existing_posts`, `existing_articles`, `existing_notes` and `existing_reviews`, and installs pgmrl's schema. Needs the
extra `local`.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Engine, Select, create_engine, inspect, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pgmrl.alembic  # noqa: F401 - registers the operations
from pgmrl import Prefix, Rotation, Short, add_short, add_side_table, check_schema, database, fit_rotation, search
from pgmrl.demo.corpus import docstrings
from pgmrl.embedders import embed_batches, load_embedder
from pgmrl.local import server_url
from pgmrl.model.shortening import Definition

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 2_000


class Base(DeclarativeBase):
    """The application's models, as they were before pgmrl."""


class Post(Base):
    """A table full of vectors."""

    __tablename__ = "existing_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(256), nullable=True)


class Article(Base):
    """Another one."""

    __tablename__ = "existing_articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(256), nullable=True)


class Note(Base):
    """Another one."""

    __tablename__ = "existing_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(256), nullable=True)


class Review(Base):
    """A table that must not change."""

    __tablename__ = "existing_reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    embedding: Mapped[Any] = mapped_column(VECTOR(256), nullable=True)


def main() -> None:
    """The tables as they were; then each of the four ways."""
    with server_url() as url:
        engine = create_engine(database.sqlalchemy_url(url))
        query = _the_application_so_far(engine)
        _by_one_index(engine, query)
        _by_prefix(engine, query)
        _by_rotation(engine, query)
        _by_side_table(engine, query)
        engine.dispose()


def _the_application_so_far(engine: Engine) -> Any:
    """Make the tables and fill them, with nothing of pgmrl's; a query vector."""
    texts = docstrings()[:ROWS]
    _, vectors = next(embed_batches(load_embedder("static"), (one.text for one in texts), ROWS))
    with engine.begin() as connection:
        database.create_pgvector(connection)
        connection.execute(text("DROP TABLE IF EXISTS existing_reviews_embedding"))
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
    with Session(engine) as session, session.begin():
        for model in (Post, Article, Note, Review):
            session.add_all(model(title=one.name, embedding=vector) for one, vector in zip(texts, vectors, strict=True))
    return vectors[0]


def _by_one_index(engine: Engine, query: Any) -> None:
    # once, after the class; the attribute and the code that writes it stay as they are
    add_short(Post.embedding, Short(64), metric="cosine", stored=False)

    def migration(op: Any) -> None:
        definition = Definition.of(256, Short(64), metric="cosine", full="vector", stored=False)
        op.create_short_index("existing_posts", "embedding", definition)

    _migrate(engine, migration)
    _finish(engine, "existing_posts")
    with Session(engine) as session:
        rows = session.execute(search(select(Post), Post.embedding, query, k=3)).all()  # [(Post, distance), …]
    print(f"existing_posts: {', '.join(f'{distance:.3f} {post.title}' for post, distance in rows)}")


def _by_prefix(engine: Engine, query: Any) -> None:
    # once, after the class; the attribute and the code that writes it stay as they are
    add_short(Article.embedding, Short(64, by=Prefix()), metric="cosine")

    def migration(op: Any) -> None:
        definition = Definition.of(256, Short(64, by=Prefix()), metric="cosine", full="vector")
        op.add_short("existing_articles", "embedding", definition)
        op.create_short_index("existing_articles", "embedding", definition)

    _migrate(engine, migration)
    _finish(engine, "existing_articles")

    with Session(engine) as session:
        check_schema(session, Article.embedding)  # raises NotMigrated, with the name of what is missing
    _search(engine, Article, search(select(Article), Article.embedding, query, k=3))

    with Session(engine) as session, session.begin():
        session.add(Article(title="written as before", embedding=list(query)))


def _by_rotation(engine: Engine, query: Any) -> None:
    with tempfile.TemporaryDirectory() as rotations:
        add_short(Note.embedding, Short(64, by=Rotation()), metric="cosine")  # not learned yet

        with engine.connect() as connection:
            learned = fit_rotation(connection, Note.embedding, axes=128)
        path = learned.rotation.save(rotations)  # r<hash>.npy: commit it beside the migrations
        for dims, kept in learned.recall_by_dims.items():
            print(f"{dims} dimensions: a rotation keeps {kept:.3f}, a prefix {learned.recall_by_dims_prefix[dims]:.3f}")

        def migration(op: Any) -> None:
            rotation = Rotation.load(path)
            op.upgrade_pgmrl("0001")
            op.install_rotation(path)
            definition = Definition.of(256, Short(64, by=rotation), metric="cosine", full="vector")
            op.add_short("existing_notes", "embedding", definition)
            op.create_short_index("existing_notes", "embedding", definition)

        _migrate(engine, migration)
        _finish(engine, "existing_notes")
        rotation = Rotation.load(path)

    class Pinned(DeclarativeBase):
        """The models of the next deployment."""

    class PinnedNote(Pinned):
        """As `Note`; its rotation is known now."""

        __tablename__ = "existing_notes"

        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[Any] = mapped_column(VECTOR(256), nullable=True)

    add_short(PinnedNote.embedding, Short(64, by=rotation), metric="cosine")
    _search(engine, PinnedNote, search(select(PinnedNote), PinnedNote.embedding, query, k=3))


def _by_side_table(engine: Engine, query: Any) -> None:
    side = add_side_table(Review.embedding, Short(64, by=Prefix()), metric="cosine", full="halfvec")

    with engine.begin() as connection:
        database.upgrade(connection)  # pgmrl's schema: its function installs the trigger
        side.create(connection)  # the table, its index, the trigger on the original, and a copy of what is there
    _finish(engine, "existing_reviews_embedding")
    _search(engine, Review, search(select(Review), Review.embedding, query, k=3))
    columns = [column["name"] for column in inspect(engine).get_columns("existing_reviews")]
    print(f"existing_reviews still has the columns {', '.join(columns)}")


def _migrate(engine: Engine, migration: Callable[[Any], None]) -> None:
    """What Alembic does with the `upgrade()` of a migration; `op` is what `from alembic import op` is there."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context) as op:
            migration(op)


def _finish(engine: Engine, table: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM (ANALYZE) {table}"))


def _search(engine: Engine, model: Any, statement: Select[Any, float]) -> None:
    with Session(engine) as session:
        check_schema(session, model.embedding)
        print(f"{model.__tablename__}:")
        for row, distance in session.execute(statement):
            print(f"  {distance:.3f}  {row.title}")


if __name__ == "__main__":
    main()
