"""A small application gains Matryoshka search by autogenerate, changes its mind, and leaves it again.

    python examples/shelf/run.py

Needs the extra `local`. The shelf has its own models, its own Alembic history and data; nothing of it is written for
pgmrl but two lines: the plugin in migrations/env.py and the attribute in models.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.session import application

QUESTION = "remove a directory and everything in it"


def main() -> None:
    """The whole story, as commands."""
    with application("shelf") as shelf:
        shelf.run("alembic", "upgrade", "head")
        shelf.run("python", "load.py")

        shelf.edit_models("models_after.py")
        shelf.run("alembic", "revision", "--autogenerate", "--rev-id", "0004", "-m", "search by meaning")
        print(shelf.newest_migration().read_text(encoding="utf-8"))
        shelf.run("alembic", "upgrade", "head")
        shelf.run("alembic", "check")
        shelf.run("python", "embed.py")
        shelf.run("python", "ask.py", QUESTION)

        shelf.edit_models("models_later.py")
        shelf.run("alembic", "revision", "--autogenerate", "--rev-id", "0005", "-m", "half as many dimensions")
        print(shelf.newest_migration().read_text(encoding="utf-8"))
        shelf.run("alembic", "upgrade", "head")
        shelf.run("alembic", "check")
        shelf.run("python", "ask.py", QUESTION)

        shelf.run("alembic", "downgrade", "0003")
        shelf.run("alembic", "upgrade", "head")
        shelf.run("alembic", "downgrade", "base")
    print("\nThere and back again.")


if __name__ == "__main__":
    main()
