"""Archives that earlier commits made: each comes up to today's schema, and knows all that it had."""

import gzip
import itertools
import shutil
import time
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive import erasure, grants, holds, migrate
from ingestor.archive.engine import reading, sqlite_path, writing
from ingestor.archive.erasure_plan import Selection
from ingestor.archive.intact import differences
from ingestor.archive.integrity import damage
from ingestor.archive.items import Item, Position, Submission
from ingestor.archive.payloads import pack, shipped
from ingestor.archive.queries import kept_payload
from ingestor.archive.rows import NO_PLACE, keyed, mail_content_key, number_key, place_of, unique_key
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.errors import SchemaMismatch
from ingestor.providers import mail_reader, post_reader
from ingestor.providers.contract import Post, Readable, Rules, Unreadable
from ingestor.record import Channel, InboundSms, Outcome
from tests.archive.earlier import given
from tests.archive.reading import number_of, one, opened, rows
from tests.archive.samples import payload, sms
from tests.archive.test_migrate import assert_exactly_the_tables, assert_whole
from tests.cli.calling import ingestor
from tests.readme import blocks
from tests.servers.postgresql import PostgresqlServer

FOLDER = Path(__file__).parent / "earlier"
PLACED = ("7ecdfed", "6668b56", "6939940")
"""Those whose imported mails lay where `given.PLACES` says."""
KINDS = sorted({path.name.removesuffix(".db.gz") for path in FOLDER.glob("*.db.gz")} - {"cases"})
CASES = FOLDER.parent.parent / "cases"
RULES = Rules(zone=ZoneInfo("Europe/Rome"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a kept archive: the commit that made it, or `mixed` for one that two commits wrote."""
    name: str = request.param
    return name


@pytest.fixture
def earlier_url(kind: str, archive_url: str, postgresql_server: PostgresqlServer) -> str:
    """The URL of a copy of a kept archive, not upgraded yet."""
    put_back(kind, archive_url, postgresql_server)
    return archive_url


def put_back(kind: str, url: str, server: PostgresqlServer | None) -> None:
    """Lay the archive of `kind` out at `url`."""
    path = sqlite_path(url)
    if path is not None or server is None:
        assert path is not None
        path.write_bytes(gzip.decompress((FOLDER / f"{kind}.db.gz").read_bytes()))
        return
    script = gzip.decompress((FOLDER / f"{kind}.sql.gz").read_bytes()).decode()
    server.sql(script, url.rpartition("/")[2])


def mail(number: int, channel: Channel, kind: str = "") -> Item:
    """Return a mail that the archive of `kind` was given, as it is read today and where it lay then."""
    raw = given.MAILS[number]
    place = Position()
    if channel is Channel.IMPORT:
        raw = raw.replace(b"\r\n", b"\n")
        path, member, offset = given.PLACES[number] if kind in PLACED else ("old.mbox", None, number * 1000)
        place = Position(input=path, member=member, offset=offset)
    found = mail_reader("agile").read_mail(raw, RULES)
    assert isinstance(found, Readable | Unreadable)
    return Item(found, channel, "again", mail_content_key(raw), given.NOW, payload(raw), place)


def post(number: int, version: int) -> Submission:
    """Return a POST that every kept archive was given, with the UUID it had in its spool file."""
    provider, content_type, body = given.POSTS[number]
    found = post_reader(provider).read_post(Post(body, b"", content_type, given.NOW), RULES)
    identity = given.identity(number, version)
    items = [
        Item(reading, Channel.WEBHOOK, provider, identity, given.NOW, None, number=at)
        for at, reading in enumerate(found)
    ]
    items[0] = items[0]._replace(payload=payload(body, content_type))
    return Submission(None, tuple(items))


def again(kind: str, version: int) -> list[Submission]:
    """Return everything that a kept archive was given, once more."""
    raw = given.LONG_MAIL
    kept = raw[: given.KEPT_OF_LONG_MAIL]
    packed = pack(kept)._replace(size=len(raw))
    long_mail = Item(
        Unreadable("it is too long", "agile.mail/1"), Channel.MAILBOX, "again", mail_content_key(raw),
        given.NOW, packed, Position(folder="INBOX", uidvalidity=7, uid=99),
    )  # fmt: skip
    return [
        Submission(None, tuple(mail(number, Channel.MAILBOX) for number in given.BY_MAILBOX)),
        Submission(None, tuple(mail(number, Channel.IMPORT, kind) for number in given.BY_IMPORT)),
        *(post(number, version) for number in range(len(given.POSTS))),
        Submission(None, (long_mail,)),
    ]


REFUSED = "SELECT count(*) FROM quarantine WHERE substr(reason, 1, 20) = 'the database refused'"
# What the README told to grant when the kept archives were made.
SERVICE = """
CREATE ROLE service LOGIN;
GRANT USAGE ON SCHEMA public TO service;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO service;
GRANT INSERT ON sms, sms_content, arrivals, retries, payloads, dictionaries TO service;
GRANT INSERT, UPDATE, DELETE ON runs, run_inputs, cursors, pending, sources TO service;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO service;
"""
SHOWN = (
    "SELECT id, channel, originator, destination, date_time, text, received_at, ingested_at"
    " FROM inbound_sms ORDER BY id"
)


def test_every_earlier_archive_knows_again_all_that_it_had(kind: str, earlier_url: str) -> None:
    """After the upgrade the same mailbox, mbox and spool store nothing, and a new SMS is stored."""
    version = 7 if kind in (given.FIRST_POSTS_OF_VERSION_7, "e58b20f", *PLACED) else 4
    with opened(earlier_url) as engine:
        before = rows(engine, SHOWN)
        arrivals = one(engine, "SELECT count(*) FROM arrivals")
        migrate.ensure_schema(engine, auto_upgrade=True)
        assert migrate.current(engine) == migrate.head()
        assert_whole(engine)
        assert_exactly_the_tables(engine)
        assert differences(engine) == []
        store = Store(engine)
        outcomes = [
            outcome for one in store.write(again(kind, version), given.NOW) for outcome in one.outcomes
        ]
        assert Outcome.STORED not in outcomes
        # A mail that was too long to be kept has nothing to take today's key from, where it had another form.
        lost = kind in ("ee5f5c2", "0bcd13c", "69ef039")
        assert one(engine, "SELECT count(*) FROM arrivals") == arrivals + lost
        assert rows(engine, SHOWN) == before
        # The one that ships with the program, whoever's mails an archive has: nobody's text is in it.
        assert {bytes(one) for (one,) in rows(engine, "SELECT bytes FROM dictionaries")} <= {shipped()[1]}
        assert [one for one in damage(engine, lambda *_: None) if "erasure" in one] == []
        new = Item(
            Readable(sms(99), "agile.mail/1"), Channel.IMPORT, "new", b"\1" * 36, given.NOW, payload(b"new")
        )
        assert store.write([Submission(None, (new,))], given.NOW)[0].outcomes == (Outcome.STORED,)
        erase_all(engine, store)
        store.write(again(kind, version), given.NOW)
        assert [number_of(engine, table) for table in ("sms_content", "arrival_content", "payloads")] == [
            0
        ] * 3
        assert list(damage(engine, lambda *_: None)) == []


def erase_all(engine: Engine, store: Store) -> None:
    """Erase every SMS and all of the quarantine, also what was held."""
    for held in holds.listed(engine):
        holds.remove(engine, held.id, given.NOW)
    waiting = [number for (number,) in rows(engine, "SELECT id FROM quarantine")]
    for selection in (
        Selection(before=given.NOW + timedelta(days=999)),
        Selection(quarantine=tuple(waiting)),
    ):
        plan = erasure.plan(engine, store.archive_key(), selection, "all", given.NOW)
        list(erasure.apply(engine, store.archive_key(), plan, lambda: given.NOW, pause=0))


def test_every_key_is_what_the_program_computes_today(earlier_url: str) -> None:
    """Fingerprints, content keys and places after the upgrade follow from the rows and the bytes; each row
    that may be erased has a salt of its own."""
    with opened(earlier_url) as engine:
        migrate.ensure_schema(engine, auto_upgrade=True)
        secret = Store(engine).archive_key()
        found = rows(
            engine,
            "SELECT s.fingerprint, s.provider, c.originator, s.destination, s.date_time, c.text,"
            " s.provider_message_id FROM sms AS s JOIN sms_content AS c ON c.sms_id = s.id",
        )
        assert len(found) >= 10
        for key, provider, originator, destination, date_time, text, identity in found:
            changed = {"originator": originator, "destination": destination, "date_time": date_time}
            record: InboundSms = sms(provider=provider, text=text, provider_message_id=identity, **changed)
            assert bytes(key) == unique_key(record, secret)
        for place, channel, path, member in rows(
            engine,
            "SELECT a.place, a.channel, c.input, c.member FROM arrivals AS a"
            " JOIN arrival_content AS c ON c.arrival_id = a.id",
        ):
            there = place_of(secret, path, member, 0) if channel == "import" else NO_PLACE
            assert bytes(place) == there
        for sms_id, from_key, to_key, from_number, to_number in rows(
            engine,
            "SELECT n.sms_id, n.originator, n.destination, c.originator, s.destination FROM sms_content AS c"
            " JOIN sms AS s ON s.id = c.sms_id LEFT JOIN sms_numbers AS n ON n.sms_id = s.id",
        ):
            assert (from_key, to_key) == tuple(number_key(one, secret) for one in (from_number, to_number))
            assert sms_id
        for table in ("sms_content", "arrival_content", "payloads"):
            salts = {bytes(salt) for (salt,) in rows(engine, f"SELECT salt FROM {table}")}
            assert {len(salt) for salt in salts} == {32}
            assert len(salts) == number_of(engine, table) > 0
        erased = one(engine, "SELECT coalesce(sum(arrivals), 0) FROM erasures")
        assert number_of(engine, "arrival_content") == number_of(engine, "arrivals") - erased
        mails = rows(engine, "SELECT id, content_key FROM arrivals WHERE channel <> 'webhook' AND sms_id > 0")
        with reading(engine) as connection:
            for number, key in mails:
                kept = kept_payload(connection, number)
                assert kept is not None
                assert bytes(key) == keyed(mail_content_key(kept.raw), secret)


def test_cases_that_were_read_before_keep_their_sms(
    archive_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """An archive that e58b20f made of every case: imported again, and by mailbox, none has a second SMS."""
    server = None if archive_url.startswith("sqlite") else request.getfixturevalue("postgresql_server")
    put_back("cases", archive_url, server)
    (tmp_path / "box").mkdir()
    for case in CASES.glob("*.eml"):
        shutil.copy(case, tmp_path / "box")
    for case in CASES.glob("*.mbox"):
        shutil.copy(case, tmp_path / "box")
    with opened(archive_url) as engine:
        had = rows(engine, SHOWN)
        migrate.upgrade(engine)
        keys = {bytes(key) for (key,) in rows(engine, "SELECT content_key FROM arrivals WHERE sms_id > 0")}
        last = one(engine, "SELECT max(id) FROM sms")
        imported = ingestor("--database-url", archive_url, "import", "--jobs", "1", "box", folder=tmp_path)
        assert " read = " in imported.err + imported.out
        secret = Store(engine).archive_key()
        fingerprints = {
            bytes(key) for (key,) in rows(engine, f"SELECT fingerprint FROM sms WHERE id <= {last}")
        }
        mails, otherwise = [], 0
        for path in sorted(CASES.glob("*.eml")):
            raw = path.read_bytes()
            if keyed(mail_content_key(raw), secret) not in keys:
                continue
            found = mail_reader("agile").read_mail(raw, RULES)
            otherwise += not isinstance(found, Readable) or unique_key(found.sms, secret) not in fingerprints
            if isinstance(found, Readable | Unreadable):
                item = Item(found, Channel.MAILBOX, "m", mail_content_key(raw), given.NOW, payload(raw))
                mails.append(item)
        assert len(mails) >= 10
        assert otherwise >= 3  # else this holds nothing: today's reader makes other SMS of them
        outcomes = Store(engine).write([Submission(None, tuple(mails))], given.NOW)[0].outcomes
        assert set(outcomes) == {Outcome.DUPLICATE}
        assert rows(engine, SHOWN)[: len(had)] == had
        new = rows(engine, f"SELECT content_key FROM arrivals WHERE sms_id > {last}")
        assert new  # what that commit could not read
        assert keys.isdisjoint(bytes(key) for (key,) in new)


def test_an_opt_out_of_a_copied_archive_gets_the_digits_of_its_time(tmp_path: Path) -> None:
    """What `db copy` to a file wrote without them has them, and its unique key knows it; of one that was
    given again meanwhile both stay."""
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    put_back("6939940", url, None)
    with opened(url) as engine:
        with writing(engine) as connection:
            for seconds in ("01Z", "02Z", "02.000000Z"):
                connection.exec_driver_sql(
                    "INSERT INTO consents (number_hmac, scope, kind, effect, at, noted_at) VALUES"
                    " (zeroblob(32), '*', 'add', 'out', '2026-03-01T12:00:' || ?, '2026-03-01T12:00:00Z')",
                    (seconds,),
                )
        migrate.upgrade(engine)
        found = rows(engine, "SELECT at FROM consents WHERE number_hmac = zeroblob(32) ORDER BY id")
        assert [at[17:] for (at,) in found] == ["01.000000Z", "02Z", "02.000000Z"]
        assert differences(engine) == []


def test_an_sms_that_the_database_refused_is_read_from_the_quarantine(
    archive_url: str, postgresql_server: PostgresqlServer
) -> None:
    """What a newer program could not write into an older archive is there after a retry, once."""
    put_back("mixed", archive_url, postgresql_server)
    with opened(archive_url) as engine:
        had = one(engine, "SELECT count(*) FROM inbound_sms")
        with structlog.testing.capture_logs() as logged:
            migrate.ensure_schema(engine, auto_upgrade=True)
        refused = one(engine, REFUSED)
        assert refused > 0
        [said] = [line for line in logged if line["log_level"] == "warning"]
        assert (said["items"], said["needs"]) == (refused, "ingestor quarantine retry")
        retry_all(engine)
        assert one(engine, "SELECT count(*) FROM inbound_sms") == had
        assert one(engine, REFUSED) == 0


@pytest.mark.postgresql
def test_the_role_that_the_readme_makes_goes_on_after_an_upgrade(
    kind: str, postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    """The owner's `db upgrade` grants it what the new schema needs, and it stores an SMS."""
    put_back(kind, postgresql_url, postgresql_server)
    database = postgresql_url.rpartition("/")[2]
    postgresql_server.sql("DROP ROLE IF EXISTS service")
    postgresql_server.sql(SERVICE, database)
    with opened(postgresql_url.replace("app@", "service@")) as service, opened(postgresql_url) as owner:
        with pytest.raises(SchemaMismatch, match="let their owner run"):
            migrate.ensure_schema(service, auto_upgrade=True)
        migrate.upgrade(owner)
        migrate.ensure_schema(service, auto_upgrade=False)
        with reading(service) as connection:
            assert grants.missing(connection, "service") == []
        store = Store(service)
        new = mail(0, Channel.IMPORT)._replace(reading=Readable(sms(99), "x/1"), content_key=b"\1" * 36)
        assert store.write([Submission(begin(service), (new,))], given.NOW)[0].outcomes == (Outcome.STORED,)
    postgresql_server.sql("DROP OWNED BY service; DROP ROLE service", database)


def begin(engine: Engine) -> int:
    """Begin a run."""
    return begin_run(engine, "run", {}, given.NOW)


@pytest.mark.postgresql
def test_the_readme_grants_all_that_the_program_needs(
    postgresql_server: PostgresqlServer, postgresql_engine: Engine
) -> None:
    """A role made by today's README lacks nothing on an archive of today."""
    database = str(postgresql_engine.url.database)
    postgresql_server.sql("DROP ROLE IF EXISTS service")
    for statements in blocks("service"):
        postgresql_server.sql(statements, database)
    with reading(postgresql_engine) as connection:
        assert grants.writers(connection) == ["service"]
        assert grants.missing(connection, "service") == []
    postgresql_server.sql("DROP OWNED BY service; DROP ROLE service", database)


@pytest.mark.postgresql
def test_a_right_that_was_taken_away_is_named_and_given_back(
    postgresql_server: PostgresqlServer, postgresql_engine: Engine
) -> None:
    """Each role that may INSERT into `sms` gets what is missing, whatever its name; no other role does."""
    database = str(postgresql_engine.url.database)
    postgresql_server.sql(
        'CREATE ROLE "Odd Service"; CREATE ROLE bystander; GRANT INSERT ON sms TO "Odd Service";'
        " GRANT SELECT ON sms TO bystander",
        database,
    )
    with reading(postgresql_engine) as connection:
        lacking = grants.missing(connection, '"Odd Service"')
    assert any(grant.startswith("GRANT INSERT ON") and "arrivals" in grant for grant in lacking)
    assert any(grant.startswith("GRANT USAGE ON SEQUENCE") for grant in lacking)
    migrate.upgrade(postgresql_engine)
    with reading(postgresql_engine) as connection:
        assert grants.missing(connection, '"Odd Service"') == []
        assert grants.missing(connection, "bystander")
    both = '"Odd Service", bystander'
    postgresql_server.sql(f"DROP OWNED BY {both}; DROP ROLE {both}", database)


def test_a_long_upgrade_tells_how_far_it_is(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line every few seconds, with how many rows are rewritten and of how many."""
    put_back("0bcd13c", sqlite_url, None)
    slow = itertools.count(0.0, 10.0)
    with opened(sqlite_url) as engine, structlog.testing.capture_logs() as logged:
        monkeypatch.setattr(time, "monotonic", lambda: next(slow))
        migrate.upgrade(engine)
        monkeypatch.undo()
    told = [line for line in logged if line["event"] == "the archive is being upgraded"]
    assert {line["rewritten"] for line in told} == {
        "fingerprints", "content keys", "arrivals", "sms_content", "payloads", "sms_numbers",
    }  # fmt: skip
    assert all(0 < line["done"] <= line["of"] for line in told)


def retry_all(engine: Engine) -> None:
    """Read the whole quarantine again."""
    from ingestor.intake.retry import retry, todays_reader

    list(retry(Store(engine), todays_reader(lambda _: RULES), None, given.NOW))
