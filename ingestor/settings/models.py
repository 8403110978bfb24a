"""The one schema of the configuration: it validates the file and makes the sample file and the reference.

Each table is a class (`Section` says how to write one) and a field of `Settings`. A provider's table is no
field here: it stands in the provider's own folder, with what follows from it (`ProviderSection`). The tables
of a room below this one stand here in a file of their own (`settings/<room>.py`) and are one line in
`Settings`, as settings import no room below them.
"""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from ingestor import providers
from ingestor.providers.contract import Credential, ProviderSection, Section, Text, left_out, none_of
from ingestor.settings import values
from ingestor.settings.mailbox import Mailbox
from ingestor.settings.replies import Answer, Answers, OptOut
from ingestor.settings.values import FilePath, Network
from ingestor.settings.watch import Metrics, Watch
from ingestor.timestamps import zone_name

Table = TypeVar("Table", bound=ProviderSection)
Named = TypeVar("Named", "Mailbox", Answer)


class Database(Section):
    """Where the archive is."""

    active = frozenset({"url"})

    url: Annotated[str, AfterValidator(values.database_url)] = Field(
        default="sqlite:///ingestor.db", repr=False,
        examples=["sqlite:////var/lib/ingestor/archive.db"],
        description="sqlite:///FILE (four slashes for an absolute path) or "
        "postgresql+psycopg://USER@HOST/DATABASE. --database-url and INGESTOR_DATABASE_URL go before it. "
        "A PostgreSQL password is better kept in the service user's .pgpass than here.",
    )  # fmt: skip
    auto_upgrade: StrictBool = Field(
        default=True,
        description="Upgrade an old schema at start. false: `run` refuses it and prints the command.",
    )
    index_texts: StrictBool = Field(
        default=True,
        description="Keep an index of all texts, by which `search` finds a word at once: the daemon and each "
        "import take in what is new. false: only `ingestor db index` does, and the texts that it lacks are "
        "read one by one.",
    )

    @property
    def file(self) -> Path | None:
        """The SQLite file (relative to the working folder), or None for other databases."""
        if not self.url.startswith("sqlite:///"):
            return None
        return Path(unquote(self.url.removeprefix("sqlite:///").partition("?")[0]))


class Endpoint(Section):
    """One address that a provider posts to; repeat the block for each further one."""

    active = frozenset({"allow_from"})

    path: Annotated[str, AfterValidator(values.url_path)] = Field(
        examples=["/agile/REPLACE-ME"], repr=False,
        description="Where the provider signs nothing an unguessable path is the secret: "
        "`ingestor config new-endpoint agile` makes one.",
    )  # fmt: skip
    provider: Literal[providers.ENDPOINTS] = Field(  # type: ignore[valid-type]  # names that the providers' table gives
        examples=["agile"], description=" | ".join(providers.ENDPOINTS)
    )
    allow_from: tuple[Network, ...] = none_of(["198.51.100.0/24"], "Networks that may post; empty: anywhere.")
    basic_username: Text | None = left_out("agile", "Ask for Basic authentication as this user.")
    basic_password_credentials: tuple[Credential, ...] = none_of(
        ["agile-post", "agile-post-next"],
        "Credentials that hold its passwords; several are accepted at once, for rotation.",
    )
    basic_password_files: tuple[FilePath, ...] = none_of(
        ["/etc/ingestor/agile-post.password"], "The same from files."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        passwords = bool(self.basic_password_credentials or self.basic_password_files)
        if self.basic_username is not None and not passwords:
            raise ValueError("basic_username needs basic_password_credentials or basic_password_files")
        if passwords and (self.basic_username is None or ":" in self.basic_username):
            raise ValueError("basic passwords need a basic_username, without a colon")
        return self


class Webhook(values.Listening):
    """The listener for providers that post; without this section there is none."""

    active = frozenset({"listen"})
    optional = True

    listen: Annotated[str, AfterValidator(values.listen_address)] = Field(
        default="127.0.0.1:8080", description="ADDRESS:PORT to listen on."
    )
    tls_certificate: FilePath | None = left_out(
        "/etc/ingestor/webhook.crt",
        "Certificate chain in PEM. Without TLS only direct loopback requests are accepted, or a "
        "proxy named in trusted_proxies.",
    )
    tls_key: FilePath | None = left_out("/etc/ingestor/webhook.key", "Its private key in PEM.")
    trusted_proxies: tuple[Network, ...] = none_of(
        ["127.0.0.1/32"], "Only these are believed about X-Forwarded-For and X-Forwarded-Proto."
    )
    max_body_bytes: Annotated[StrictInt, Field(ge=1024, le=67108864)] = Field(
        default=65536,
        description="A larger body is refused (413); raise it for many SMS in one POST.",
    )
    spool_first: StrictBool = Field(
        default=False,
        description="For a PostgreSQL with asynchronous standbys: write each POST to the spool before the "
        "database, keep it there for ten minutes after its commit, and submit it again after a failover.",
    )
    endpoint: Annotated[tuple[Endpoint, ...], Field(min_length=1)]

    @property
    def named(self) -> list[tuple[str, Endpoint]]:
        """Each endpoint with the name that logs and the archive give it: `agile-1`, `agile-2`, `ip1-1`."""
        counts: dict[str, int] = {}
        endpoints = []
        for endpoint in self.endpoint:
            counts[endpoint.provider] = counts.get(endpoint.provider, 0) + 1
            endpoints.append((f"{endpoint.provider}-{counts[endpoint.provider]}", endpoint))
        return endpoints

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_certificate is None and not values.is_loopback(self.host) and not self.trusted_proxies:
            raise ValueError(
                "listens on a network without TLS; give tls_certificate and tls_key, listen on 127.0.0.1, "
                "or name the proxy in trusted_proxies"
            )
        if len({one.path for one in self.endpoint}) < len(self.endpoint):
            raise ValueError("two endpoints have the same path")
        return self


class KeepRule(Section):
    """Other periods, for numbers of ours or for providers: the first rule that fits an SMS counts."""

    optional = True

    destination: Text | None = left_out("+393331234333", "Only SMS to this number.")
    provider: Text | None = left_out("infobip", "Only SMS of this provider.")
    keep: values.Period = Field(examples=["2y"], description="How long they are kept.")

    @model_validator(mode="after")
    def _for_something(self) -> Self:
        if self.destination is None and self.provider is None:
            raise ValueError("needs a destination or a provider; for all SMS there is retention.keep")
        return self


class Retention(Section):
    """How long content is kept: 90d, 18m or 10y. Times, counts and hashes stay, whatever is erased."""

    keep: values.Period | None = left_out("10y", "How long SMS are kept. Left out: for ever.")
    quarantine: values.Period | None = left_out(
        "90d", "How long what could not be read is kept. Left out: for ever."
    )
    apply: bool = Field(
        default=False,
        description="Erase each day what is older. Else the daemon only says each day what would go.",
    )
    rule: tuple[KeepRule, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether anything is ever to go."""
        return bool(self.keep or self.quarantine or self.rule)


class _BuiltWhenThere:
    """Builds what checks a table when the file has that table: for all of them it was 10 ms of each start."""

    def __get_pydantic_core_schema__(self, source: Any, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda table: TypeAdapter(source).validate_python(table)
        )


_T = TypeVar("_T")
Late = Annotated[_T, _BuiltWhenThere()]


class _First(Section):
    timezone: Annotated[str, AfterValidator(zone_name)] | None = left_out(
        "Europe/Rome",
        "The zone in which `search`, `show`, `status`, `quarantine` and `explain` show times to "
        "people, and read --since and --until without an offset. Left out: the machine's own. JSON, exports, "
        "views, `import` and `rescan` are in UTC always.",
    )

    # A default is right as it is; to check it, pydantic would build a validator for each table alone.
    database: Late[Database] = Database.model_construct()


if TYPE_CHECKING:
    _WithProviders = _First
else:  # what the type checker cannot follow: a table for each provider's folder, in the order of theirs
    _WithProviders = create_model(
        "_WithProviders", __base__=_First,
        **{
            name: (Late[folder.SECTION], folder.SECTION.model_construct())
            for name, folder in providers.folders().items()
        },
    )  # fmt: skip


class Settings(_WithProviders):
    """Everything that can be configured. Without a file all of it has its default."""

    mailbox: Late[tuple[Mailbox, ...]] = ()
    webhook: Late[Webhook | None] = None
    opt_out: Late[OptOut] = OptOut.model_construct()
    metrics: Late[Metrics | None] = None
    watch: Late[Watch] = Watch.model_construct()
    answers: Late[Answers] = Answers.model_construct()
    answer: Late[tuple[Answer, ...]] = ()
    retention: Late[Retention] = Retention.model_construct()

    _sources: tuple[Path, ...] = PrivateAttr(default=())

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that were read, in their order."""
        return self._sources

    @property
    def source(self) -> Path | None:
        """The first file that was read, or None where there was none."""
        return next(iter(self._sources), None)

    @property
    def files(self) -> Iterator[tuple[str, Path]]:
        """Every key that names a file, and that file."""
        return _files_in(self)

    def section(self, kind: type[Table]) -> Table:
        """Return a provider's own table: `settings.section(Agile).numbers`."""
        return next(value for _, value in self if isinstance(value, kind))

    @field_validator("mailbox", "answer")
    @classmethod
    def _names_once(cls, tables: tuple[Named, ...], info: ValidationInfo) -> tuple[Named, ...]:
        names = [one.name for one in tables]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            what = "mailboxes" if info.field_name == "mailbox" else "answers"
            raise ValueError(f"two {what} are called {min(twice)!r}; give each a name of its own")
        return tables

    @model_validator(mode="after")
    def _answers_can_be_sent(self) -> Self:
        if self.answer and not any(getattr(table, "api", None) for _, table in self):
            raise ValueError("[[answer]] needs [agile.api]: nothing can be sent without it")
        return self


def _files_in(table: Section) -> Iterator[tuple[str, Path]]:
    for key, value in table:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Path):
                yield key, one
            elif isinstance(one, Section):
                yield from _files_in(one)


def table_of(annotation: Any) -> type[Section] | None:
    """Return the model inside `Model`, `Model | None` or `tuple[Model, ...]`, else None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    inside = get_args(annotation) if get_origin(annotation) in {Union, UnionType, tuple} else ()
    return next(filter(None, map(table_of, inside)), None)
