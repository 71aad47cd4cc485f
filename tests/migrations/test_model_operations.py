"""A model in the database as an operation of an application's own migrations."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import DowngradeOps, UpgradeOps

from pgmrl.alembic import InstallTextModel, RemoveTextModel
from pgmrl.errors import DefinitionError, EmbedderError, MigrationError
from pgmrl.functions.text_models import models
from tests.small_model import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.migrations.conftest import Application

MIGRATION = """
from alembic import op
import pgmrl.alembic
revision, down_revision = "a1", None

def upgrade():
    op.upgrade_pgmrl("0001")
    op.install_text_model({folder!r}, name="mine")
    op.install_text_model({folder!r})

def downgrade():
    op.remove_text_model("mine")
    op.remove_text_model("small")
    op.remove_text_model("small")
    op.upgrade_pgmrl("base", "0001")
"""


@contextmanager
def operations(engine: Engine) -> Iterator[Operations]:
    """In a transaction that is committed."""
    with engine.begin() as connection:
        yield Operations(MigrationContext.configure(connection))


def names(engine: Engine) -> list[str]:
    """The models that are installed."""
    with engine.connect() as connection:
        return [model.name for model in models(connection)]


def test_up_and_down(project: Application, tmp_path: Path) -> None:
    """As a migration of an application; what is gone already stops nothing."""
    engine, folder = project.new_database(), write_model(tmp_path / "small")
    project.revise(engine, lambda _: None, "a1")
    (script,) = tmp_path.glob("**/versions/*a1*.py")
    script.write_text(MIGRATION.format(folder=str(folder)), encoding="utf-8")
    project.upgrade(engine, lambda _: None)
    assert names(engine) == ["mine", "small"]
    with pytest.raises(MigrationError, match=r"`pgmrl model install .*small` instead"):
        project.printed(engine, lambda _: None, "base:head")
    project.downgrade(engine, lambda _: None, "base")
    project.upgrade(engine, lambda _: None)
    with operations(engine) as op:
        op.invoke(InstallTextModel(str(folder)))
    assert names(engine) == ["mine", "small"]
    other = write_model(tmp_path / "other", seed=1)
    with operations(engine) as op, pytest.raises(MigrationError, match="another model 'mine'"):
        op.invoke(InstallTextModel(str(other), "mine"))
    with operations(engine) as op, pytest.raises(EmbedderError, match="expected `static` or a folder"):
        op.invoke(InstallTextModel("nowhere"))


def test_reversed() -> None:
    """Each undoes the other, where it says from which files."""
    install = InstallTextModel("models/small")
    assert install.reverse() == RemoveTextModel("small", "models/small")
    assert install.reverse().reverse() == InstallTextModel("models/small", "small")
    assert UpgradeOps(ops=[install]).reverse_into(DowngradeOps(ops=[])).ops == [install.reverse()]
    assert install.to_diff_tuple() == ("install_text_model", install)
    written = render_python_code(UpgradeOps(ops=[install, InstallTextModel("static", "mine"), install.reverse()]))
    assert "op.install_text_model('models/small')\n" in written
    assert "op.install_text_model('static', name='mine')\n" in written
    assert "op.remove_text_model('small')" in written
    with pytest.raises(DefinitionError, match="cannot be reversed"):
        RemoveTextModel("small").reverse()
