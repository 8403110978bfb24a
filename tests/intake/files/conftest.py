"""What the tests of the import share."""

import pytest
from sqlalchemy import Engine

from tests.intake.files.importing import Importer


@pytest.fixture
def run_import(archive_engine: Engine, capsys: pytest.CaptureFixture[str]) -> Importer:
    """Imports into a fresh archive, once on each database."""
    return Importer(archive_engine, capsys)


@pytest.fixture
def run_sqlite_import(sqlite_engine: Engine, capsys: pytest.CaptureFixture[str]) -> Importer:
    """Imports into a fresh SQLite archive: for what does not depend on the database."""
    return Importer(sqlite_engine, capsys)
