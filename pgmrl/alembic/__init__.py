"""Operations for an application's own Alembic history; import this module in `env.py` or in the migration.

    from alembic import op
    import pgmrl.alembic

    def upgrade():
        op.upgrade_pgmrl("0001")
        op.install_rotation("rotations/r9c41a2b3c4d5.npy")
        op.add_short("documents", "embedding", Definition.of(768, Short(128)))

A second Alembic head would break `alembic upgrade head`; these operations keep one linear history.
"""

from pgmrl.alembic.operations import AddShort, DropShort, InstallRotation, UpgradePgmrl
from pgmrl.alembic.render import render_item

__all__ = ["AddShort", "DropShort", "InstallRotation", "UpgradePgmrl", "render_item"]
