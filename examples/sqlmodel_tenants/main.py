"""The team's notes that are nearest to a question: `python main.py TENANT TEAM QUESTION`, with DATABASE_URL set."""

import sys
from collections.abc import Iterable

from db import team_session
from models import Note
from sqlmodel import select

from pgmrl import search
from pgmrl.embedders import embed_query, load_embedder

embedder = load_embedder("static")


def write(tenant: str, team: str, bodies: Iterable[str]) -> None:
    """Keep some notes."""
    texts = list(bodies)
    vectors = embedder.embed_documents(texts).tolist()
    with team_session(tenant, team) as session:
        session.add_all(
            Note(team=team, body=body, embedding=vector) for body, vector in zip(texts, vectors, strict=True)
        )


def find(tenant: str, team: str, question: str, k: int = 5) -> list[tuple[Note, float]]:
    """The nearest notes and their distances, nearest first."""
    nearest = search(select(Note), Note.embedding, embed_query(embedder, question), k=k)
    with team_session(tenant, team) as session:
        rows = session.exec(nearest).all()
        session.expunge_all()
    return [(note, distance) for note, distance in rows]


if __name__ == "__main__":
    _, chosen_tenant, chosen_team, text = sys.argv
    for note, distance in find(chosen_tenant, chosen_team, text):
        print(f"{distance:.3f}  {note.body[:100]}")
