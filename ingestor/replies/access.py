"""From `[agile.api]` and its credential to a client."""

from ingestor.errors import ConfigurationError
from ingestor.providers.agile import Agile
from ingestor.providers.agile.api import Api
from ingestor.replies.agile import Access, AgileClient, api_key, basic
from ingestor.settings import Settings, credential, secret_file

MISSING = (
    "there is no [agile.api] in the configuration, so nothing can be sent; `ingestor config example` shows it"
)


def api_of(settings: Settings) -> Api:
    """Return the table. Raises ConfigurationError where there is none."""
    api = settings.section(Agile).api
    if api is None:
        raise ConfigurationError(MISSING)
    return api


def client_of(settings: Settings) -> AgileClient:
    """Return a client; its key or password is fetched now, with the rights of now.

    Raises ConfigurationError where the table or the secret is missing.
    """
    api = api_of(settings)
    ca_file = None if api.ca_file is None else str(api.ca_file)
    try:
        return AgileClient(
            Access(
                api.base_url, _way_in(api), api.connect_seconds, api.answer_seconds, api.rate, api.retry_5xx,
                ca_file,
            )
        )  # fmt: skip
    except OSError as fault:
        raise ConfigurationError(f"agile.api.ca_file: cannot be used: {fault.strerror or fault}") from None


def _way_in(api: Api) -> dict[str, str]:
    if api.api_key_credential is not None:
        return api_key(credential(api.api_key_credential))
    if api.api_key_file is not None:
        return api_key(secret_file(api.api_key_file))
    if api.password_credential is not None:
        return basic(api.username or "", credential(api.password_credential))
    if api.password_file is None:  # the schema asks for one way in
        raise ConfigurationError("agile.api has no key and no password")
    return basic(api.username or "", secret_file(api.password_file))
