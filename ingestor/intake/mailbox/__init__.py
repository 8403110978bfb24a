"""The mailbox: IMAP with IDLE and poll, one thread and one connection a mailbox."""

from ingestor.intake.mailbox.thread import MailboxThread
from ingestor.intake.mailbox.waiting import Timing

__all__ = ["MailboxThread", "Timing"]
