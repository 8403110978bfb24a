"""Turns Agile Telecom's inbound-SMS mails, posts and old mailboxes into one SQL archive."""

__version__ = "0.1.0"
