"""A real Dovecot, started by hand on loopback with TLS; touches nothing in /etc and no service.

Root's mails belong to nobody; anybody else runs it whole as himself.
"""

import contextlib
import grp
import itertools
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import trustme

from tests.servers.places import new_folder

BINARY = Path("/usr/sbin/dovecot")
INSTALL = "Dovecot is not installed: apt-get install dovecot-imapd dovecot-lmtpd"
PASSWORD = "secret"

_ROOT = os.geteuid() == 0
_USER = "nobody" if _ROOT else pwd.getpwuid(os.geteuid()).pw_name
_GROUP = "nogroup" if _ROOT else grp.getgrgid(os.getegid()).gr_name
# Without root no process can become another user, nor be locked into a folder.
_OWN = (
    ""
    if _ROOT
    else f"""
default_internal_user = {_USER}
default_internal_group = {_GROUP}
default_login_user = {_USER}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
}}
service stats {{
  chroot =
}}
"""
)

_SETTINGS = """
base_dir = {run}
state_dir = {run}
log_path = {folder}/log
protocols = imap lmtp
listen = 127.0.0.1
{own}
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login{mechanisms}
auth_failure_delay = 0
mail_location = maildir:{folder}/mail/%n
maildir_very_dirty_syncs = no
first_valid_uid = 1
mail_max_userip_connections = 100
{oauth2}
passdb {{
  driver = static
  args = password={password}
  mechanisms = plain login
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={folder}/mail/%n allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  prefix = {prefix}
  separator = .
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


def unavailable() -> str | None:
    """Return why no Dovecot can be started here, None where one can."""
    return None if BINARY.exists() else INSTALL


class DovecotServer:
    """One Dovecot with any number of accounts; each has the password PASSWORD and a Maildir of its own."""

    def __init__(self, *, prefix: str = "", introspection: str | None = None) -> None:
        """Start it; with the URL of an `introspection` endpoint it takes access tokens, too."""
        self.folder = new_folder("dc")
        self.folder.chmod(0o755)
        self.imap_port, self.imaps_port, self.lmtp_port = _free_ports(3)
        self._numbers = itertools.count(1)
        self._deliveries = itertools.count(1)
        (self.folder / "mail").mkdir()
        (self.folder / "mail").chmod(0o777)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(self.folder / "cert.pem"))
        self._configuration = self.folder / "dovecot.conf"
        self._configuration.write_text(
            _SETTINGS.format(
                folder=self.folder, run=self.folder / "run", password=PASSWORD, prefix=prefix,
                user=_USER, group=_GROUP, own=_OWN, oauth2=_oauth2(self.folder, introspection),
                mechanisms=" xoauth2 oauthbearer" if introspection else "",
                imap=self.imap_port, imaps=self.imaps_port, lmtp=self.lmtp_port,
            )
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._penalties: _PenaltyStub | None = None
        self.start()

    @property
    def ca_file(self) -> Path:
        """The certificate authority that the server's certificate comes from."""
        return self.folder / "ca.pem"

    def start(self) -> None:
        """Start the server and wait for its greeting."""
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        self._penalties = _PenaltyStub(run / "anvil-auth-penalty")
        self._process = subprocess.Popen(
            [str(BINARY), "-F", "-c", str(self._configuration)],
            start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.imap_port), 1) as c,
            ):
                if c.recv(4) == b"* OK":
                    return
            time.sleep(0.02)
        raise RuntimeError("Dovecot does not greet:\n" + self.log())

    def stop(self) -> None:
        """Stop the server and every connection."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            # The processes that serve connections outlive their master.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None
        if self._penalties is not None:
            self._penalties.close()
            self._penalties = None

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def account(self) -> str:
        """Return the name of an account that nobody has used yet."""
        user = f"user{next(self._numbers)}"
        self.maildir(user)
        return user

    def maildir(self, user: str, folder: str = "INBOX") -> Path:
        """Return the Maildir of a folder of `user`; made if it is missing."""
        root = self.folder / "mail" / user
        where = root if folder == "INBOX" else root / f".{folder}"
        for path in (root, where, *(where / part for part in ("cur", "new", "tmp"))):
            if not path.exists():
                path.mkdir()
                _give(path)
        if folder != "INBOX" and not (marker := where / "maildirfolder").exists():
            marker.touch()
            _give(marker)
        return where

    def deliver(self, user: str, mails: Iterable[bytes], folder: str = "INBOX", flags: str = "") -> int:
        """Put `mails` into a folder, by rename as Maildir deliverers do; return how many."""
        where = self.maildir(user, folder)
        count = 0
        for count, raw in enumerate(mails, 1):  # noqa: B007 - it is the answer
            name = f"{1_700_000_000 + next(self._deliveries)}.M1P1.test"
            temporary = where / "tmp" / name
            temporary.write_bytes(raw.replace(b"\r\n", b"\n"))
            _give(temporary)
            temporary.rename(where / "cur" / f"{name}:2,{flags}" if flags else where / "new" / name)
        return count

    def flags(self, user: str, folder: str = "INBOX") -> list[str]:
        """Return the Maildir flags of every mail in a folder, as the disk has them."""
        where = self.maildir(user, folder)
        found = [
            path.name.partition(":2,")[2] for part in ("cur", "new") for path in (where / part).iterdir()
        ]
        return sorted(found)

    def doveadm(self, *arguments: str) -> str:
        """Run one of Dovecot's own commands on this server."""
        done = subprocess.run(
            ["doveadm", "-c", str(self._configuration), *arguments],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        return done.stdout

    def empty(self, user: str, folder: str = "INBOX") -> None:
        """Expunge every mail of a folder."""
        self.doveadm("expunge", "-u", user, "mailbox", folder, "all")

    def kick(self, user: str) -> None:
        """Cut every connection of `user`, without a BYE."""
        self.doveadm("kick", user)

    def log_out(self, user: str) -> None:
        """Cut every connection of `user` and wait for their end."""
        self.kick(user)
        while user in self.doveadm("who", "-1"):
            time.sleep(0.02)

    def back_up(self, user: str) -> Path:
        """Copy the Maildir of `user` as a backup does, with the numbers that lie in it."""
        self.log_out(user)
        copy = self.folder / f"backup-{user}"
        subprocess.run(["cp", "-a", str(self.folder / "mail" / user), str(copy)], check=True)
        return copy

    def restore(self, user: str, backup: Path) -> None:
        """Put a backup in the Maildir's place."""
        self.log_out(user)
        shutil.rmtree(self.folder / "mail" / user)
        backup.rename(self.folder / "mail" / user)

    def reset_uidvalidity(self, user: str, folder: str = "INBOX") -> None:
        """Make the folder lose its numbers: a new UIDVALIDITY, and mails renumbered from 1.

        Everybody is logged out first. The new value is the second it is made in, hence the wait.
        """
        self.log_out(user)
        where = self.maildir(user, folder)
        for path in (*where.glob("dovecot-uidlist*"), *where.glob("dovecot.index*")):
            path.unlink()
        time.sleep(1.1)

    def client_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts this server."""
        return ssl.create_default_context(cafile=str(self.ca_file))


class _PenaltyStub(threading.Thread):
    """Answers Dovecot's question about earlier bad logins with "none".

    Without it each failed login, and every good one after it, is delayed by up to 15 seconds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(name="penalties", daemon=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen()
        self.start()

    def run(self) -> None:
        """Serve until closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"PENALTY-GET"):
                    connection.sendall(b"0 0\n")

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _oauth2(folder: Path, introspection: str | None) -> str:
    """Return the settings of the password database that asks an authorisation server about tokens."""
    if introspection is None:
        return ""
    file = folder / "oauth2.conf.ext"
    file.write_text(
        f"introspection_mode = post\nintrospection_url = {introspection}\nforce_introspection = yes\n"
        "username_attribute = username\nactive_attribute = active\nactive_value = true\n"
        "timeout_msecs = 5000\n"
    )
    return f"passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {file}\n}}"


def _give(path: Path) -> None:
    shutil.chown(path, _USER, _GROUP)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]
