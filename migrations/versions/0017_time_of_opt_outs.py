"""The six digits of an opt-out's time, where an SQLite file was copied from PostgreSQL.

`db copy` and `backup` left them out for a whole second, which each SMS has: such an event sorted after others
of its second. One that was given again meanwhile stands there with them already: then the other stays.
"""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Write them."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("UPDATE OR IGNORE consents SET at = replace(at, 'Z', '.000000Z') WHERE at NOT LIKE '%.%'")
