"""${message}"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Say what changes and why."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Refuse: an archive is never taken back."""
    raise NotImplementedError("an archive's schema only goes forward; restore the copy made before")
