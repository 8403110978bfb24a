"""What a reload may change in a running daemon, and what needs a restart."""

from ingestor.settings import Settings

RESTART_ONLY = ("database", "webhook")


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """Return the changed sections that a reload leaves as they were."""
    return [section for section in RESTART_ONLY if getattr(old, section) != getattr(new, section)]


def merged(old: Settings, new: Settings) -> Settings:
    """Return `new` with those sections of `old` that only a restart can change."""
    return new.model_copy(update={section: getattr(old, section) for section in RESTART_ONLY})


def run_options(settings: Settings) -> dict[str, object]:
    """Return what the row in `runs` keeps of the settings: names, and nothing secret."""
    return {
        "mailboxes": [mailbox.name for mailbox in settings.mailbox],
        "webhook": settings.webhook.listen if settings.webhook else None,
    }
