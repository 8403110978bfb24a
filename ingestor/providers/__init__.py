"""The providers: one line each (`contract` says what stands behind it), imported only when asked for."""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Provider(NamedTuple):
    folder: str
    mails: str | None = None
    posts: str | None = None
    reports: str | None = None


PROVIDERS = {
    "agile": Provider("agile", mails="mail", posts="form"),
    "infobip": Provider("infobip", posts="callback"),
    "ip1": Provider("ip1", posts="callback"),
    "agile-reports": Provider("agile", reports="report"),
}

MAIL_READERS = tuple(name for name, provider in PROVIDERS.items() if provider.mails)
POST_READERS = tuple(name for name, provider in PROVIDERS.items() if provider.posts)
REPORT_READERS = tuple(name for name, provider in PROVIDERS.items() if provider.reports)
ENDPOINTS = (*POST_READERS, *REPORT_READERS)
"""What may post to us: SMS, or reports on those we sent."""


def mail_reader(name: str) -> ModuleType:
    """Return the module that reads mails of provider `name` (see `contract.MailReader`)."""
    return _module(PROVIDERS[name].folder, PROVIDERS[name].mails)


def post_reader(name: str) -> ModuleType:
    """Return what reads POSTs of provider `name` (see `contract.PostReader`)."""
    provider = PROVIDERS[name]
    return _module(provider.folder, provider.posts or provider.reports)


def folders() -> dict[str, ModuleType]:
    """Return the folders by their names; the SECTION of each is its table of the configuration."""
    return {provider.folder: _module(provider.folder) for provider in PROVIDERS.values()}


def _module(*path: str | None) -> ModuleType:
    if None in path:
        raise KeyError(path[0])
    return import_module(".".join((__name__, *filter(None, path))))
