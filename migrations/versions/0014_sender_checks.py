"""What a check of the sender found when a mail came: a row a finding, which arrivals name."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)  # fmt: skip

revision = "0014"
down_revision = "0013"

Big = BigInteger().with_variant(Integer(), "sqlite")

_NAME = "fk_arrivals_sender_check_id"


def upgrade() -> None:
    """Add the table and the column; nobody checked what came before, so that it is NULL there."""
    connection = op.get_bind()
    metadata = MetaData()
    checks = Table(
        "sender_checks", metadata,
        Column("id", Big, nullable=False, autoincrement=False),
        Column("method", Text, nullable=False),
        Column("finding", Text, nullable=False),
        Column("domain", Text),
        Column("selector", Text),
        Column("public_key", Text),
        PrimaryKeyConstraint("id", name="pk_sender_checks"),
        sqlite_strict=True,
    )  # fmt: skip
    checks.create(connection)
    if connection.dialect.name == "sqlite":  # in place: batch mode would write every row of the table anew
        op.execute(
            "ALTER TABLE arrivals ADD COLUMN sender_check_id INTEGER"
            f" CONSTRAINT {_NAME} REFERENCES sender_checks (id)"
        )
    else:
        op.add_column("arrivals", Column("sender_check_id", Big))
        op.create_foreign_key(_NAME, "arrivals", "sender_checks", ["sender_check_id"], ["id"])
    arrivals = Table(
        "arrivals", metadata,
        Column("sender_check_id", Big), Column("source", Text), Column("ingested_at", Text),
        Column("sender_verified", Integer),
        ForeignKeyConstraint(["sender_check_id"], ["sender_checks.id"]),
    )  # fmt: skip
    checked = text("sender_check_id IS NOT NULL")
    Index(
        "ix_arrivals_sender_checked", arrivals.c.source, arrivals.c.ingested_at, arrivals.c.sender_verified,
        sqlite_where=checked, postgresql_where=checked,
    ).create(connection)  # fmt: skip
