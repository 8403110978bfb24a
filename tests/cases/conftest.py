"""The command in this process, as the command line's own tests call it."""

from tests.cli.conftest import called

__all__ = ["called"]
