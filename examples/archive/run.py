"""An application whose table is always in use gains Matryoshka search online, changes its mind, and leaves it again.

    python examples/archive/run.py

Needs the extra `local`. A process reads and writes the table from beginning to end; no step stops it, and it is never
restarted.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.session import Application, application

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def in_use(archive: Application) -> Iterator[None]:
    """The application as it was before, at work."""
    process = subprocess.Popen(
        [sys.executable, "traffic.py"],
        cwd=archive.folder,
        env=archive.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield
    finally:
        summary, _ = process.communicate("")
        print(f"\nthe application meanwhile: {summary}", flush=True)
    if process.returncode != 0:
        raise SystemExit("the application failed")


def main() -> None:
    """The whole story, as commands."""
    with application("archive") as archive:
        archive.run("alembic", "upgrade", "head")
        archive.run("python", "load.py")
        with in_use(archive):
            archive.edit_models("models_after.py")
            archive.run("pgmrl", "check-migration", "notes.embedding", "--short-dims", "64", "--json")
            archive.run("alembic", "revision", "--autogenerate", "--rev-id", "0004", "-m", "two-stage search")
            print(archive.newest_migration().read_text(encoding="utf-8"))
            archive.run("pgmrl", "upgrade")
            archive.run("pgmrl", "check-migration", "--config", "alembic.ini")
            archive.run("alembic", "upgrade", "head")
            archive.run("alembic", "check")
            archive.run("python", "ask.py")

            archive.run("pgmrl", "reshape", "start", "notes.embedding", "--short-dims", "32", "--dry-run")
            archive.run("pgmrl", "reshape", "start", "notes.embedding", "--short-dims", "32")
            archive.run("python", "ask.py")  # old code, while both are there
            archive.edit_models("models_reshaped.py")
            archive.run("python", "ask.py")  # new code
            archive.run("pgmrl", "reshape", "contract", "notes.embedding", "--wait-seconds", "2")
            archive.run("alembic", "check")

            archive.edit_models("models_before.py")
            archive.run("alembic", "revision", "--autogenerate", "--rev-id", "0005", "-m", "no search any more")
            print(archive.newest_migration().read_text(encoding="utf-8"))
            archive.run("alembic", "upgrade", "head")
            archive.run("alembic", "check")
    print("\nThere and back again, without stopping.")


if __name__ == "__main__":
    main()
