"""Notes of the teams of a tenant. Each tenant has a schema, each team sees its own rows."""

from sqlalchemy import Column
from sqlmodel import Field, SQLModel

from pgmrl import FilterIndex, Matryoshka, Short


class Note(SQLModel, table=True):
    """A note; `schema_translate_map` says in which tenant's schema."""

    id: int | None = Field(default=None, primary_key=True)
    team: str = Field(index=True)  # what the policy of row-level security goes by
    body: str
    embedding: list[float] = Field(
        sa_column=Column(Matryoshka(256, Short(64), as_list=True, filters=[FilterIndex("team")]), nullable=False)
    )
