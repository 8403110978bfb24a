"""The configuration: one schema that validates the file and makes the sample file and the reference page.

`load` reads and checks; `secret` fetches a password when it is needed; `rules_for` says what a
provider's readers need to know; `state_directory` is where files of ours may lie.
"""

from ingestor.errors import ConfigurationError
from ingestor.providers import PROVIDERS
from ingestor.providers.contract import ProviderSection, Rules
from ingestor.settings.credentials import (
    credential,
    endpoint_passwords,
    kept_secret,
    login_key,
    secret,
    with_password,
)
from ingestor.settings.loading import DEFAULT_FILE, load, require_work, state_directory
from ingestor.settings.mailbox import Mailbox, OAuth, Trust
from ingestor.settings.models import Endpoint, Settings, Webhook
from ingestor.settings.replies import OptOut
from ingestor.settings.values import hide_url_password


def mailbox_named(settings: Settings, name: str) -> Mailbox:
    """Return the mailbox called `name`. Raises ConfigurationError, naming those there are."""
    found = next((one for one in settings.mailbox if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in settings.mailbox) or "none"
        raise ConfigurationError(f"no mailbox is called {name!r}; the configuration has: {known}")
    return found


def rules_for(settings: Settings, provider: str) -> Rules:
    """Return what the readers of `provider` need to know. Raises KeyError for an unknown one."""
    section: ProviderSection = getattr(settings, PROVIDERS[provider].folder)
    return section.rules()
