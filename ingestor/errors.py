"""The one small exception family: each says whether to retry, how to exit, and what the user reads."""

from collections.abc import Iterable


class IngestorError(Exception):
    """A fault with a sentence for the user.

    The message is one line that says what is wrong and what to do. It never contains message text, whole
    phone numbers or secrets, because it goes to logs as it is.
    """

    retry = False
    """True when the same work may succeed later without anybody changing anything."""

    exit_code = 1
    """What a command exits with when this ends it (2: wrong usage or configuration)."""

    said = ""
    """What the other side said in full: for a person's terminal, never for a log."""


class ConfigurationError(IngestorError):
    """The configuration, the command line or the environment is wrong; only a person can mend it."""

    exit_code = 2


class ArchiveUnavailable(IngestorError):
    """The database cannot be reached or cannot take a write now (down, locked, disk full)."""

    retry = True


class TransactionGivenUp(ArchiveUnavailable):
    """The database gave a transaction up for another's sake (a deadlock): it may be tried again at once."""


class RunLost(ArchiveUnavailable):
    """The run that something is to be counted under is not in the archive: a failover has lost its row."""


class SchemaMismatch(ConfigurationError):
    """The archive's schema is newer than this program, or older and must not be upgraded by it."""


class SchemaNewer(SchemaMismatch):
    """The archive's schema is newer than this program: nothing but a newer program helps."""


class UpgradeFailed(SchemaMismatch):
    """The archive could not be brought up to this program's schema; nothing in it was changed."""

    exit_code = 1


class MailboxUnavailable(IngestorError):
    """The IMAP server cannot be reached or broke the conversation off."""

    retry = True


class CredentialsRefused(IngestorError):
    """The IMAP server refused the user name or password; tried again slowly, or the account may be locked."""

    retry = True


class LoginFault(IngestorError):
    """No access token is to be had for a mailbox.

    `state` is what the mailbox is in then: `needs_login` (a person must log in), `needs_consent` (an
    administrator must agree), `needs_secret` (secret or key is wrong, or has ended), `clock` (ours is wrong),
    `refused`, `misconfigured` or `unreachable`. `pause` is how many seconds to wait before the next try, None
    where it is tried as after any broken connection.
    """

    retry = True

    def __init__(self, message: str, state: str = "unreachable", pause: float | None = None) -> None:
        """Say what is wrong and what to do."""
        super().__init__(message)
        self.state = state
        self.pause = pause


class ProviderUnavailable(IngestorError):
    """A provider's API cannot be reached, or refuses what it is asked."""

    retry = True


class RunTaken(IngestorError):
    """Two processes continue the same run of an import: the one that comes second to a step stops."""


class TemporaryFolderFull(IngestorError):
    """A dry run has no room for the keys of what it has seen."""


class InputUnreadable(IngestorError):
    """A file given to `import` cannot be read as what it claims to be."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known word nearest to `word`, or nothing where none is near."""
    import difflib  # few words are wrong

    by_lower = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[matches[0]]}?" if matches else ""
