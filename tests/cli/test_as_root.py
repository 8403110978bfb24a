"""Root on a server: he reads with his own rights, and what he writes belongs to the archive's owner."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.calling import Called, ingestor
from tests.conftest import started_postgresql
from tests.sample_mails import generate
from tests.servers.imap.server import ImapServer
from tests.service.process import configuration, mailbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work for somebody else")

MAILS = [mail.raw for mail in generate(12, seed=5)]
BROKEN = b"From: smsin@agiletelecom.com\nSubject: Agile Telecom -- SMS received\n\nFrom: +393331234567\n"


@pytest.fixture(scope="module")
def service() -> Iterator[pwd.struct_passwd]:
    """A user as the unit has one, made for these tests."""
    name = f"ingestor-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--shell", "/usr/sbin/nologin", name], check=True)
    yield pwd.getpwnam(name)
    subprocess.run(["userdel", name], check=True)


class Server:
    """A machine with a state directory of the service user's, and a configuration that only root may read."""

    def __init__(self, folder: Path, user: pwd.struct_passwd, made: Path) -> None:
        self.folder, self.user, self._made = folder, user, made
        folder.chmod(0o755)
        self.state = folder / "state"
        self.state.mkdir(0o750)
        os.chown(self.state, user.pw_uid, user.pw_gid)
        self.home = folder / "home"
        self.home.mkdir(0o700)
        os.chown(self.home, 12345, 12345)
        self.environment: dict[str, str] = {}
        self.url = f"sqlite:///{self.state / 'archive.db'}"
        self.config = configuration(folder, self.url)

    def call(self, *arguments: str | Path) -> Called:
        """Call the command as root, and hold that nothing of his stays in the state directory."""
        called = ingestor(
            "--config", self.config, *arguments, folder=self.folder, environment=self.environment
        )
        self.hold_owners()
        return called

    def make_archive(self) -> None:
        """Let the service user have an archive, as `db upgrade` makes it."""
        archive = self.state / "archive.db"
        shutil.copyfile(self._made, archive)
        archive.chmod(0o640)
        os.chown(archive, self.user.pw_uid, self.user.pw_gid)

    def hold_owners(self) -> None:
        """Fail where something in the state directory is not its owner's."""
        found = {str(path): (path.stat().st_uid, path.stat().st_gid) for path in self.state.rglob("*")}
        assert set(found.values()) <= {(self.user.pw_uid, self.user.pw_gid)}, found

    def hold_open(self) -> subprocess.Popen[bytes]:
        """Keep the archive open as the service user does, so that its -wal and -shm stay."""
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "c.execute('SELECT count(*) FROM sms').fetchall(); print('open', flush=True); sys.stdin.read()"
        )
        ids = (f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups")
        command = ["setpriv", *ids, shutil.which("python3", path="/usr/bin") or "python3", "-c", code]
        process = subprocess.Popen(
            [*command, str(self.state / "archive.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        return process


@pytest.fixture
def machine(service: pwd.struct_passwd, _sqlite_template: Path) -> Iterator[Server]:
    """A server with nothing in its archive yet."""
    folder = Path(tempfile.mkdtemp(prefix="srv", dir="/tmp"))
    yield Server(folder, service, _sqlite_template)
    shutil.rmtree(folder)


def _mbox(path: Path, *mails: bytes) -> Path:
    path.write_bytes(
        b"".join(b"From MAILER-DAEMON Thu Jan  1 00:00:00 2026\n" + mail + b"\n\n" for mail in mails)
    )
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    return path


def test_an_import_of_a_closed_home(machine: Server) -> None:
    """A mailbox in somebody's 0700 home is read, and the archive is made as its owner's, and used again."""
    mails = _mbox(machine.home / "mbox", *MAILS, BROKEN)

    first = machine.call("import", mails)
    assert first.code == 0, first.err
    assert (machine.state / "archive.db").stat().st_mode & 0o777 == 0o640
    holder = machine.hold_open()
    second = machine.call("import", mails)
    assert "0 stored" in second.out, second.out
    holder.communicate()
    assert machine.call("import", mails).code == 0


def test_a_restore_after_erasures_and_opt_outs_is_the_owner_s(machine: Server) -> None:
    """What root puts back, and does in it on the way, and what was there before belong to the owner, who goes
    on with it; the archive's mode is 0640, the erasure and the opt-out are in it."""
    backups, plan = machine.folder / "backups", machine.folder / "plan.json"
    backups.mkdir(0o700)
    os.chown(backups, machine.user.pw_uid, machine.user.pw_gid)
    machine.folder.chmod(0o777)  # for the plan, which the owner writes
    mails = _mbox(machine.home / "mbox", *MAILS)
    assert machine.call("import", mails).code == 0
    file = machine.call("backup", backups).out.split(": ")[0]
    assert machine.call("erase", "plan", "--sms", "1", "--basis", "x", "--output", plan).code == 0
    assert machine.call("erase", "apply", plan).code == 0
    assert machine.call("optout", "add", "+393351234567", "--reason", "she phoned").code == 0

    done = machine.call("restore", "--replace", file)

    assert done.code == 0, done.err
    assert "archive before it: 1 SMS" in done.out
    assert "1 opt-outs or returns" in done.out
    assert [one.name for one in machine.state.glob("*.replaced-*")] != []
    archive = machine.state / "archive.db"
    assert archive.stat().st_mode & 0o777 == 0o640
    holder = machine.hold_open()
    assert "0 stored" in machine.call("import", mails).out
    holder.communicate()
    assert machine.call("optout", "check", "+393351234567").code == 1
    assert archive.stat().st_mode & 0o777 == 0o640


def test_a_rescan_with_a_credential_of_root(machine: Server) -> None:
    """The password is one that root alone may read, the archive is the service user's: it is no circle."""
    secret = machine.folder / "secret"
    secret.write_text("demo\n")
    secret.chmod(0o400)
    with ImapServer().running() as server:
        for raw in MAILS:
            server.deliver(raw)
        for how in (f'password_file = "{secret}"', f'password_command = ["/bin/cat", "{secret}"]'):
            block = mailbox(server.port).replace('password = "demo"', how)
            machine.config = configuration(machine.folder, machine.url, block)
            assert machine.call("db", "upgrade").code == 0
            rescan = machine.call("rescan", "main", "--json")
            assert rescan.code == 0, rescan.err
            check = machine.call("check")
            assert check.code == 0, check.out
    assert machine.call("search", "--limit", "1").out


def test_all_other_commands(machine: Server) -> None:
    """Nothing of root's stays behind, whatever he calls; what he asks to be written elsewhere is his."""
    assert machine.call("import", _mbox(machine.home / "mbox", *MAILS, BROKEN)).code == 0
    closed = machine.folder / "root-only"
    closed.mkdir(0o700)
    number = str(json.loads(machine.call("quarantine", "list", "--json").out.splitlines()[0])["id"])
    for words in (
        ("quarantine", "list"), ("quarantine", "retry"), ("quarantine", "export", closed / "q.mbox"),
        ("quarantine", "discard", number, "--reason", "x"),
        ("snapshot", closed / "copy.db"), ("export", "--output", closed / "all.csv"),
        ("status",), ("search", "x"), ("show", "1"), ("db", "upgrade"), ("db", "current"), ("check",),
    ):  # fmt: skip
        called = machine.call(*words)
        assert "may not" not in called.err, called.err
        assert called.code == 0 or words[0] in {"check", "status"}, (words, called)
    assert (closed / "copy.db").stat().st_uid == 0


def test_a_file_of_root_in_it_is_named(machine: Server) -> None:
    """An archive that was copied back as root is said, with the line that gives it to its owner."""
    machine.make_archive()
    os.chown(machine.state / "archive.db", 0, 0)
    (machine.state / "archive.db").chmod(0o644)

    called = ingestor("--config", machine.config, "quarantine", "retry", folder=machine.folder)
    assert called.code == 2
    assert f"chown {machine.user.pw_name}: {machine.state / 'archive.db'}" in called.err
    check = ingestor("--config", machine.config, "check", folder=machine.folder)
    assert check.code == 2  # there is nothing to read either
    assert f"chown -R {machine.user.pw_name}: {machine.state}" in check.out


def test_postgresql_that_knows_its_users_by_name(machine: Server) -> None:
    """Over a socket with peer authentication root's commands are the service user's to the server."""
    with started_postgresql() as server:
        server.folder.chmod(0o755)
        server.sql(f'CREATE ROLE "{machine.user.pw_name}" LOGIN')
        server.sql(f'CREATE DATABASE sms OWNER "{machine.user.pw_name}"')
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\nlocal all all peer\n")
        server.sql("SELECT pg_reload_conf()")
        machine.url = f"postgresql+psycopg:///sms?host={server.folder}&port={server.port}"
        machine.config = configuration(machine.folder, machine.url)
        machine.environment = {"STATE_DIRECTORY": str(machine.state)}
        mails = _mbox(machine.home / "mbox", *MAILS, BROKEN)
        for words in (
            ("db", "upgrade"), ("import", mails), ("quarantine", "retry"), ("search", "x"), ("status",),
            ("snapshot", machine.folder / "copy.db"),
        ):  # fmt: skip
            called = machine.call(*words)
            assert called.code == 0, (words, called)
        assert f'can be read and written by "{machine.user.pw_name}"' in machine.call("check").out


def _installed(machine: Server, server: ImapServer) -> Path:
    """Put a unit, a credential and a mailbox that needs it in place; return the unit's folder."""
    units = machine.folder / "units"
    units.mkdir()
    secret = machine.folder / "secret"
    secret.write_text("demo\n")
    secret.chmod(0o400)
    (units / "ingestor.service").write_text(
        f"[Service]\nUser={machine.user.pw_name}\nExecStart=/x/ingestor --config {machine.config} run\n"
        f"Environment=STATE_DIRECTORY={machine.state}\n# a comment\n"
        f"LoadCredential=\\\nimap-main:{secret}\nPrivateTmp=no\n"
    )
    # The interpreter of the tests may lie where nobody but root reads: what it loads late is loaded now.
    (units / "sitecustomize.py").write_text("import encodings.idna, encodings.utf_16_be, encodings.utf_7\n")
    machine.environment = {
        "SYSTEMD_UNIT_PATH": str(units), "STATE_DIRECTORY": str(machine.state), "PYTHONPATH": str(units),
    }  # fmt: skip
    block = mailbox(server.port).replace('password = "demo"', 'password_credential = "imap-main"')
    machine.config = configuration(machine.folder, machine.url, block)
    os.chown(machine.config, 0, machine.user.pw_gid)
    machine.config.chmod(0o640)
    machine.make_archive()
    return units


def _spoilt_archive(machine: Server) -> None:
    os.chown(machine.state / "archive.db", 0, 0)
    (machine.state / "archive.db").chmod(0o644)


def _snapshot(machine: Server) -> None:
    copy = machine.folder / "copy.db"
    assert machine.call("snapshot", copy).code == 0
    copy.replace(machine.state / "archive.db")
    (machine.state / "archive.db").chmod(0o444)
    os.chown(machine.state / "archive.db", machine.user.pw_uid, machine.user.pw_gid)


SPOILT: dict[str, tuple[str | Callable[[Server], None], str]] = {
    "nothing": ("", "looked at as {folder}/units/ingestor.service runs it: as {user}, with its credentials"),
    "no credential": ("LoadCredential=\n", "the unit passes no credential imap-main"),
    "another user": ("User=nobody-at-all\n", "run: systemd-sysusers"),
    "hidden": ("PrivateTmp=yes\n", "{state} is hidden from it (PrivateTmp=yes)"),
    "closed": ("ProtectSystem=strict\n", "add ReadWritePaths={state} by `systemctl edit ingestor`"),
    "archive of root": (_spoilt_archive, "chown {user}: {state}/archive.db"),
    "snapshot": (_snapshot, "{state}/archive.db is a snapshot, for reading only"),
    "configuration": (lambda one: one.config.chmod(0o600), "chgrp {user} {folder}/ingestor.toml"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_check_sees_what_the_daemon_will_see(machine: Server, what: str) -> None:
    """As root it looks with the unit's user, credentials and sandbox; it never says that root should work."""
    spoil, expected = SPOILT[what]
    with ImapServer().running() as server:
        units = _installed(machine, server)
        if isinstance(spoil, str):
            (units / "ingestor.service.d").mkdir()
            (units / "ingestor.service.d" / "site.conf").write_text(f"[Service]\n{spoil}")
        else:
            spoil(machine)
        check = ingestor(
            "--config", machine.config, "check", folder=machine.folder, environment=machine.environment
        )
    said = expected.format(folder=machine.folder, state=machine.state, user=machine.user.pw_name)
    assert said in check.out, check.out
    assert check.code == {"nothing": 0, "configuration": 2}.get(what, 1), check.out
    assert "-u root" not in check.out
    assert "as root" not in check.out
    assert not list(Path("/dev/shm").glob("*/imap-main"))


def test_a_read_only_file_system_is_called_that(machine: Server) -> None:
    """By `check` and by whoever opens the archive, in place of an advice about owners."""
    with ImapServer().running() as server:
        _installed(machine, server)
        bind = ["mount", "--bind", str(machine.state), str(machine.state)]
        subprocess.run(bind, check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(machine.state)], check=True)
            check = machine.call("check")
            retry = machine.call("quarantine", "retry")
        finally:
            subprocess.run(["umount", str(machine.state)], check=True)
    assert f"state: {machine.state} lies on a read-only file system; mount it" in check.out
    assert check.code == 1
    assert "read-only file system" in retry.err


def test_another_configuration_is_not_the_units(machine: Server) -> None:
    """What the unit does not run is looked at by root's own rights, and that is said."""
    with ImapServer().running() as server:
        _installed(machine, server)
        other = machine.folder / "other.toml"
        other.write_text(f"{machine.config.read_text().partition('[[mailbox]]')[0]}{mailbox(server.port)}")
        machine.config = other
        check = machine.call("check")
    assert "so this file was looked at with root's eyes" in check.out
    assert check.code == 0, check.out
