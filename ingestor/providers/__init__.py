"""The providers by name: one line each, imported only when asked for."""

from importlib import import_module
from types import ModuleType

MAIL_READERS = {"agile": "ingestor.providers.agile.mail"}
POST_READERS = {
    "agile": "ingestor.providers.agile.form",
    "infobip": "ingestor.providers.infobip.callback",
    "ip1": "ingestor.providers.ip1.callback",
}


def mail_reader(name: str) -> ModuleType:
    """Return the module that reads mails of provider `name` (see `contract.MailReader`)."""
    return import_module(MAIL_READERS[name])


def post_reader(name: str) -> ModuleType:
    """Return the module that reads POSTs of provider `name` (see `contract.PostReader`)."""
    return import_module(POST_READERS[name])
