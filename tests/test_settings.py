"""The configuration: what is accepted, how each fault reads, and that no secret ever shows."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ingestor.errors import ConfigurationError
from ingestor.service.checks.machine import cautions
from ingestor.settings import (
    Mailbox,
    OptOut,
    Settings,
    load,
    loading,
    models,
    rules_for,
    state_directory,
)
from ingestor.settings.models import table_of
from ingestor.settings.sample import reference, sample

MAILBOX = '[[mailbox]]\nname = "main"\nhost = "imap.example.org"\nusername = "sms"\npassword_file = "/x"\n'
ENDPOINT = '[[webhook.endpoint]]\npath = "/agile/k3QxAbCdEfGhIjKlMnOpQr"\nprovider = "agile"\n'


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own configuration and units out of these tests."""
    monkeypatch.setattr(loading, "DEFAULT_FILE", tmp_path / "absent" / "ingestor.toml")
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str) -> Path:
    path = folder / "ingestor.toml"
    path.write_text(text)
    return path


def test_what_the_file_does_not_have_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What checks a table is made for those in the file alone: for all of them it was 4 ms of each start."""
    built: list[Any] = []
    monkeypatch.setattr(models, "TypeAdapter", lambda kind: built.append(kind) or TypeAdapter(kind))

    settings = load(write(tmp_path, MAILBOX + "[opt_out]\n"), None)

    assert built == [tuple[Mailbox, ...], OptOut]
    assert settings.database.url == "sqlite:///ingestor.db"


def faults(folder: Path, text: str, database_url: str | None = None) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, database_url)
    assert caught.value.exit_code == 2
    place = re.compile(rf"{path}(:[0-9]+)?: ")
    lines = [place.sub("", line, count=1) for line in str(caught.value).splitlines()]
    return [
        re.sub(r"^\[\[(\w)[\w.]*\]\] 1 \"[^\"]+\": ", lambda block: f"{{{block[1].upper()}}}", one)
        for one in lines
    ]


def test_no_file_means_defaults() -> None:
    """Without any file every setting has the default that the contract names."""
    settings = load(None, None)

    assert settings.database.url == "sqlite:///ingestor.db"
    assert settings.database.auto_upgrade is True
    assert settings.agile.timezone == "Europe/Rome"
    assert settings.agile.sender == "smsin@agiletelecom.com"
    assert settings.mailbox == ()
    assert settings.webhook is None
    assert settings.source is None


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A file that was asked for and is not there is an error that says how to get one."""
    with pytest.raises(ConfigurationError, match=r"no such configuration file.*config example"):
        load(tmp_path / "missing.toml", None)
    with pytest.raises(ConfigurationError, match="is a folder"):
        load(tmp_path, None)


def test_the_contract_is_accepted_whole(tmp_path: Path) -> None:
    """The configuration of the contract, every key set, is read as it is written."""
    path = write(
        tmp_path,
        """
[database]
url = "postgresql://ingestor@db.example.org/sms"
auto_upgrade = false
[agile]
timezone = "UTC"
numbers = ["+39 333 1234333", "0039333999", "393331234334", "43112"]
sender = "SMSin@AgileTelecom.com"
[agile.labels]
text = ["Testo"]
[infobip]
numbers = ["385916242493"]
[ip1]
numbers = ["46700000000"]
[[mailbox]]
name = "main"
host = "imap.example.org"
port = 993
security = "tls"
ca_file = "/etc/ssl/private-ca.pem"
username = "sms@example.org"
password_credential = "imap-main"
folders = ["INBOX", "Più"]
idle = true
poll_seconds = 60
max_mail_bytes = 33554432
after_store = "move"
move_to = "Stored"
[webhook]
listen = "[::1]:8080"
tls_certificate = "/c.pem"
tls_key = "/k.pem"
trusted_proxies = ["10.0.0.7", "2001:db8::/32"]
max_body_bytes = 65536
[[webhook.endpoint]]
path = "/agile/k3QxAbCdEfGhIjKlMnOpQr"
provider = "agile"
allow_from = ["198.51.100.0/24"]
basic_username = "agile"
basic_password_credentials = ["a", "b"]
""",
    )

    settings = load(path, None)

    assert settings.database.url == "postgresql+psycopg://ingestor@db.example.org/sms"
    assert settings.agile.numbers == ("+393331234333", "+39333999", "+393331234334", "43112")
    assert settings.agile.sender == "smsin@agiletelecom.com"
    assert settings.infobip.numbers == ("+385916242493",)
    assert settings.mailbox[0].folders == ("INBOX", "Più")
    assert settings.webhook is not None
    assert (settings.webhook.host, settings.webhook.port) == ("::1", 8080)
    assert [str(one) for one in settings.webhook.trusted_proxies] == ["10.0.0.7/32", "2001:db8::/32"]
    assert settings.source == path
    assert cautions(settings) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[databse]", "databse: unknown key; did you mean database?"),
        ("[database]\nurI = 1", "database.urI: unknown key; did you mean url?"),
        ("[agile.labels]\ntexts = []", "agile.labels.texts: unknown key; did you mean text?"),
        (MAILBOX + "pasword = 'x'", "{M}pasword: unknown key; did you mean password?"),
        ("zzzz = 1", "zzzz: unknown key"),
        ("agile = 3", "agile: must be a table: write [agile], with single brackets"),
        ("[mailbox]\nname = 'x'", "mailbox: is a list of tables: write [[mailbox]], with double brackets"),
        ("[[webhook]]", "webhook: must be a table: write [webhook], with single brackets"),
        ("[webhook]", "webhook.endpoint: is missing"),
        ("[webhook]\nendpoint = []", "webhook.endpoint: is empty; give at least one"),
        ("[agile]\ntimezone = 'Europe/Roma'",
         "agile.timezone: 'Europe/Roma' is no time zone; did you mean Europe/Rome?"),
        ("[agile]\ntimezone = '../x'", "agile.timezone: '../x' is no time zone"),
        ("[agile]\nsender = 'Agile <a@b.it>'",
         "agile.sender: is no single mail address like smsin@agiletelecom.com"),
        ("[agile]\nnumbers = ['+393331234333', 'Agile']",
         "agile.numbers, entry 2: is no phone number; write it like +393331234333"),
        ("[agile]\nnumbers = '+393331234333'", 'agile.numbers: must be a list, like ["…"]'),
        ("[infobip]\nnumbers = ['12']",
         "infobip.numbers, entry 1: is no phone number; write it like +393331234333"),
        (MAILBOX.replace('= "imap', '= "imaps://imap'),
         "{M}host: is an address with a scheme; write the name alone, and security = … beside it"),
        (MAILBOX.replace('.org"', '.org:993"'),
         '{M}host: has a port in it; write host = "imap.example.org" and port = 993'),
        (MAILBOX + "port = '993'", "{M}port: must be a whole number, without quotes"),
        (MAILBOX + "port = true", "{M}port: must be a whole number, without quotes"),
        (MAILBOX + "port = 70000", "{M}port: must be 65535 or less"),
        (MAILBOX + "poll_seconds = 0", "{M}poll_seconds: must be 1 or more"),
        (MAILBOX + "idle = 'yes'", "{M}idle: must be true or false"),
        (MAILBOX + "security = 'ssl'", "{M}security: must be one of 'tls', 'starttls' or 'plain'"),
        (MAILBOX + "folders = []", "{M}folders: is empty; give at least one"),
        (MAILBOX + "folders = ['INBOX', 'inbox']", "{M}folders: names a folder twice"),
        (MAILBOX + "folders = ['']", "{M}folders, entry 1: is empty"),
        (MAILBOX + "ca_file = ''", "{M}ca_file: is empty; give a path or leave it out"),
        (MAILBOX + "after_store = 'move'", '{M}after_store = "move" needs move_to'),
        (MAILBOX + "after_store = 'move'\nmove_to = 'INBOX'",
         "{M}move_to is one of folders; moved mail would be read again for ever"),
        (MAILBOX + "password = 'x'",
         "{M}has more than one password; keep one of password_file, password"),
        (MAILBOX.replace('password_file = "/x"', ""),
         ("{M}has no password; give one of password_credential, password_file, password_command, "
         "password, token_command, oauth")),
        (MAILBOX + "security = 'plain'",
         ('{M}security = "plain" sends the password readable over the network; use "tls" or '
         '"starttls", or set allow_plain = true')),
        (MAILBOX.replace('password_file = "/x"', "password_credential = '../x'"),
         ("{M}password_credential: is no credential name: letters, digits, dot, dash and underscore, "
         "no path")),
        (MAILBOX.replace('"main"', '"a b"'),
         ("{M}name: must begin with a letter or digit and hold only letters, digits, dot, dash and "
         "underscore")),
        (MAILBOX + MAILBOX, "mailbox: two mailboxes are called 'main'; give each a name of its own"),
        ("[webhook]\nlisten = '0.0.0.0:80'\n" + ENDPOINT,
         ("webhook: listens on a network without TLS; give tls_certificate and tls_key, listen on 127.0.0.1, "
         "or name the proxy in trusted_proxies")),
        ("[webhook]\nlisten = '8080'\n" + ENDPOINT,
         "webhook.listen: must be ADDRESS:PORT, like 127.0.0.1:8080 or [::1]:8080"),
        ("[webhook]\nlisten = '::1:80'\n" + ENDPOINT,
         "webhook.listen: needs brackets around an IPv6 address, like [::1]:8080"),
        ("[webhook]\nlisten = 'example.org:80'\n" + ENDPOINT,
         "webhook.listen: needs an IP address to listen on, like 127.0.0.1:8080 or [::1]:8080"),
        ("[webhook]\nlisten = '127.0.0.1:65536'\n" + ENDPOINT, "webhook.listen: has a port above 65535"),
        ("[webhook]\ntls_key = 'x'\n" + ENDPOINT, "webhook: tls_certificate and tls_key go together"),
        ("[webhook]\n" + ENDPOINT + ENDPOINT, "webhook: two endpoints have the same path"),
        ("[webhook]\n" + ENDPOINT + "allow_from = ['10.0.0.1/24']",
         "{W}allow_from, entry 1: '10.0.0.1/24' has bits beyond its mask; write 10.0.0.0/24"),
        ("[webhook]\n" + ENDPOINT + "allow_from = ['example.org']",
         ("{W}allow_from, entry 1: 'example.org' is no network like 198.51.100.0/24 or "
         "2001:db8::/32")),
        ("[webhook]\n" + ENDPOINT + "basic_username = 'x'",
         "{W}basic_username needs basic_password_credentials or basic_password_files"),
        ("[webhook]\n" + ENDPOINT.replace("/agile/", "agile/"),
         "{W}path: must start with /"),
        ("[webhook]\n" + ENDPOINT.replace("/agile/", "/agile?"),
         "{W}path: may hold only letters, digits and . _ ~ - /"),
        ("[database]\nurl = 'mysql://x/y'",
         ("database.url: names the unknown database 'mysql'; use sqlite:///FILE or "
         "postgresql+psycopg://USER@HOST/DATABASE")),
        ("[database]\nurl = 'archive.db'",
         "database.url: is no database URL; use sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"),
        ("[database]\nurl = 'sqlite://archive.db'",
         "database.url: needs three slashes before the file: sqlite:///FILE, or four: sqlite:////ABSOLUTE"),
        ("[database]\nurl = 'sqlite:///:memory:'",
         "database.url: names no file; an archive in memory would be lost: sqlite:///FILE"),
        ("[database]\nurl = 'postgresql://u:a/b@h/d'",
         ("database.url: has a port that is no number (an @ : / in the password must be written as "
         "%40 %3A %2F)")),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_with_its_path(tmp_path: Path, text: str, line: str) -> None:
    """A wrong value is one line that names the TOML path and what to write instead."""
    assert faults(tmp_path, text) == [line]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Somebody with five faults reads five lines, not one after each start."""
    text = "[agile]\ntimezone = 'x/y'\nnumbers = ['?']\n[web]\n" + MAILBOX + "port = 0\nmove = 1\n"

    assert [line.partition(": ")[0] for line in faults(tmp_path, text)] == [
        "agile.timezone", "agile.numbers, entry 1", "{M}port", "{M}move", "web",
    ]  # fmt: skip


def test_toml_faults_name_line_and_column(tmp_path: Path) -> None:
    """A file that is no TOML is one line with the place."""
    assert faults(tmp_path, "[agile]\ntimezone == 1") == [
        "is no valid TOML: Invalid value (at line 2, column 11)"
    ]
    assert faults(tmp_path, "timezone = 'a'\ntimezone = 'b'\n") == [
        "is no valid TOML: a key stands there twice (at line 2, column 15)"
    ]
    assert faults(tmp_path, 'timezone = "a\n') == [
        "is no valid TOML: a quote is not closed (at line 1, column 14)"
    ]
    (tmp_path / "ingestor.toml").write_bytes(b"[agile]\n# \xe0")
    with pytest.raises(ConfigurationError, match="is not UTF-8 at byte 10"):
        load(tmp_path / "ingestor.toml", None)


def test_a_machines_file_that_is_closed_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names an archive of his own needs none of it; whoever else, or names the file, is told."""

    def closed(path: Path) -> None:
        raise loading._closed(path)

    monkeypatch.setattr(loading, "_read", closed)
    assert load(None, f"sqlite:///{tmp_path}/snapshot.db").database.url.endswith("snapshot.db")
    for path, url in ((None, None), (tmp_path / "x.toml", "sqlite:///a.db")):
        with pytest.raises(ConfigurationError, match="you may not read it"):
            load(path, url)


def test_the_database_url_given_goes_before_the_file(tmp_path: Path) -> None:
    """--database-url wins over the file, even over a wrong one there, and a wrong one names itself."""
    path = write(tmp_path, "[database]\nurl = 'mysql://x'\nauto_upgrade = false\n")

    settings = load(path, "sqlite:////tmp/a.db")

    assert settings.database.url == "sqlite:////tmp/a.db"
    assert settings.database.auto_upgrade is False
    assert faults(tmp_path, "", "nonsense") == [
        (
            "database URL (--database-url or INGESTOR_DATABASE_URL): is no database URL; "
            "use sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
        )
    ]


def test_starttls_and_plain_default_to_their_port(tmp_path: Path) -> None:
    """993 belongs to tls alone; whoever leaves the port out with starttls means 143."""
    for security, port in (("tls", 993), ("starttls", 143)):
        settings = load(write(tmp_path, MAILBOX + f"security = '{security}'"), None)
        assert settings.mailbox[0].port == port


def test_plain_is_for_loopback_or_on_request(tmp_path: Path) -> None:
    """plain passes on this very machine and with allow_plain."""
    for host in ("localhost", "127.0.0.9", "::1"):
        load(write(tmp_path, MAILBOX.replace("imap.example.org", host) + "security = 'plain'"), None)
    load(write(tmp_path, MAILBOX + "security = 'plain'\nallow_plain = true"), None)


def test_state_directory_follows_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$STATE_DIRECTORY, else the SQLite file's folder, else the working folder."""
    monkeypatch.chdir(tmp_path)
    postgresql = load(None, "postgresql://h/d")

    assert state_directory(load(None, "sqlite:////srv/sms/a%20b.db")) == Path("/srv/sms")
    # One slash too many is the root's, not a host's.
    assert load(None, "sqlite://///srv/a.db").database.url == "sqlite:////srv/a.db"
    assert state_directory(load(None, None)) == tmp_path
    assert state_directory(postgresql) == tmp_path
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/ingestor:/var/lib/other")
    assert state_directory(postgresql) == Path("/var/lib/ingestor")


def test_rules_carry_what_readers_need(tmp_path: Path) -> None:
    """Zone, numbers, sender and labels of Agile; numbers alone of the others."""
    path = write(
        tmp_path,
        "[agile]\nnumbers = ['393331234333']\n[agile.labels]\ntext = ['Testo']\n"
        "[ip1]\nnumbers = ['46700000000']",
    )

    rules = rules_for(load(path, None), "agile")

    assert (rules.zone.key, rules.numbers) == ("Europe/Rome", frozenset({"+393331234333"}))
    assert rules.labels == {"text": ("Testo",)}
    assert rules_for(load(path, None), "ip1").numbers == frozenset({"+46700000000"})
    with pytest.raises(KeyError):
        rules_for(load(path, None), "other")


def test_the_sample_file_is_the_schema() -> None:
    """config/ingestor.toml is what `config example` prints, and config/reference.md its --markdown."""
    folder = Path(__file__).parent.parent / "config"

    assert (folder / "ingestor.toml").read_text() == sample()
    assert (folder / "reference.md").read_text() == reference()


def test_the_sample_file_is_valid_and_names_every_key() -> None:
    """As it stands the sample loads; each line commented out is a key of its table with a valid value."""
    settings = Settings.model_validate(tomllib.loads(sample()))
    model, seen = Settings, 0

    assert settings.mailbox[0].password_credential == "imap-main"
    for line in sample().splitlines():
        heading = re.fullmatch(r"#?\[+([a-z0-9_.]+)\]+", line)
        if heading:
            model = Settings
            for part in heading[1].split("."):
                model = table_of(model.model_fields[part].annotation)
        setting = re.fullmatch(r"#?([a-z_0-9]+) = (.*)", line)
        if setting:
            field = model.model_fields[setting[1]]
            value = tomllib.loads(f"{setting[1]} = {setting[2]}")[setting[1]]
            validated = TypeAdapter(field.rebuild_annotation())
            validated.validate_python(value)
            seen += 1
    assert seen == sum(1 for line in reference().splitlines() if line.startswith("| `"))


def test_every_key_has_a_description() -> None:
    """No key is in the schema without words for the sample file and the reference."""
    tables = [Settings]
    while tables:
        table = tables.pop()
        assert table.__doc__
        for key, field in table.model_fields.items():
            inner = table_of(field.annotation)
            if inner is not None:
                tables.append(inner)
            else:
                assert field.description, key
