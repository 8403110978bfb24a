"""The files of the configuration: conf.d beside the main one, and the line that each fault names."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ingestor.errors import ConfigurationError
from ingestor.settings import load, loading

MAILBOX = '[[mailbox]]\nname = "{0}"\nhost = "imap.example.org"\nusername = "sms"\npassword_file = "/x"\n'


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """Make a main file with a mailbox and a folder for further ones."""
    (tmp_path / "conf.d").mkdir()
    path = tmp_path / "ingestor.toml"
    path.write_text('[agile]\nnumbers = ["+393331234333"]\n\n' + MAILBOX.format("main"))
    return path


def further(main: Path, name: str, text: str) -> Path:
    path = main.parent / "conf.d" / name
    path.write_text(text)
    return path


def fault(main: Path | None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(main, None)
    return str(caught.value)


def test_files_of_conf_d_follow_in_the_order_of_their_names(main: Path) -> None:
    """Tables merge, arrays of tables grow in the order of the names, and other files there are left alone."""
    second = further(main, "20-second.toml", MAILBOX.format("second") + "[agile.labels]\ntext = ['Testo']\n")
    first = further(main, "10-first.toml", "[agile]\ntimezone = 'UTC'\n" + MAILBOX.format("first"))
    for other in ("README", "30-off.toml.dpkg-old", ".#10-first.toml"):
        further(main, other, "nonsense")

    settings = load(main, None)

    assert [one.name for one in settings.mailbox] == ["main", "first", "second"]
    assert (settings.agile.timezone, settings.agile.numbers) == ("UTC", ("+393331234333",))
    assert settings.agile.labels.text == ("Testo",)
    assert settings.sources == (main, first, second)


def test_without_a_main_file_conf_d_is_read(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default file may be absent, and what a site put beside it counts."""
    monkeypatch.setattr(loading, "DEFAULT_FILE", main.with_name("absent.toml"))
    file = further(main, "site.toml", "[agile]\ntimezone = 'UTC'\n")

    settings = load(None, None)

    assert settings.agile.timezone == "UTC"
    assert settings.source == file


def test_a_key_set_twice_names_both_files(main: Path) -> None:
    """Nobody has to guess which of two files counts: both are named, with their lines, for every such key."""
    one = further(main, "1.toml", "timezone = 'UTC'\n[agile]\nnumbers = []\n")
    two = further(main, "2.toml", "# here\ntimezone = 'UTC'\nmailbox = 3\n")

    assert fault(main).splitlines() == [
        f"{one}:3: agile.numbers: is set in {main}:2 too; keep one",
        f"{two}:2: timezone: is set in {one}:1 too; keep one",
        f"{two}:3: mailbox: is set in {main}:4 too; keep one",
    ]


def test_a_fault_names_its_file_line_and_block(main: Path) -> None:
    """Whoever has ten mailboxes in three files is led to the line, and reads which mailbox it is."""
    file = further(
        main, "more.toml",
        MAILBOX.format("second")
        + 'folders = [\n"INBOX",\n"port = 1",\n]\nport = 70000\nmove_to = """\nport = 2\n"""\n'
        + "\n[[mailbox]]\nname = 'third'\nhost = 'x'\npassword = 'y'\n"
        "[webhook]\nlisten = '127.0.0.1:1'\n[[webhook.endpoint]]\nprovider = 'agile'\npath = 'x'\n",
    )  # fmt: skip

    assert fault(main).splitlines() == [
        f'{file}:10: [[mailbox]] 2 "second": port: must be 65535 or less',
        f'{file}:15: [[mailbox]] 3 "third": username: is missing',
        f'{file}:23: [[webhook.endpoint]] 1 "agile": path: must start with /',
    ]


STATEMENTS = [
    "", "# zz_zz = 1", "x.subjects = [\n'a', # zz_zz = 1\n]", "[webhook]", "[[mailbox]]\nname = 'a'",
    "text = ['\u2028zz_zz = 1']",
    "text2 = \'\'\'\nzz_zz = 2\n\'\'\'", "  [agile.labels]", "[[mailbox]]", "[[webhook.endpoint]]",
]  # fmt: skip


@given(before=st.lists(st.sampled_from(STATEMENTS), max_size=8), after=st.sampled_from(STATEMENTS))
def test_an_unknown_key_is_found_on_its_line(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: str
) -> None:
    """Whatever stands around it, an unknown key is told with the number of its own line."""
    main = tmp_path_factory.mktemp("lines") / "ingestor.toml"
    text = "\n".join([*before, "zz_zz = 1", after])
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)  # two of one table
    main.write_text(text)
    told = fault(main)

    line = "\n".join([*before, ""]).count("\n") + 1
    assert re.search(rf"^{main}:{line}: (.*[.:] ?)?zz_zz: unknown key", told, re.MULTILINE), told


def test_conf_d_of_somebody_else_is_refused(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file there can name a command to be run: in a folder for all, nobody may put one beside ours."""
    further(main, "evil.toml", "[agile]\ntimezone = 'UTC'\n")
    if os.geteuid() == 0:
        os.chown(main.parent / "conf.d", 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
        monkeypatch.setattr(loading, "DEFAULT_FILE", main.with_name("absent.toml"))

    assert "conf.d: belongs to another user" in fault(main if os.geteuid() == 0 else None)


def test_a_file_of_conf_d_that_cannot_be_read_is_named(main: Path) -> None:
    """A dangling link and broken TOML there are faults with the file's name, never passed over."""
    broken = further(main, "broken.toml", "[agile\n")
    assert fault(main).startswith(f"{broken}: is no valid TOML: ")

    broken.unlink()
    broken.symlink_to("nowhere")
    assert fault(main) == f"{broken}: points to a file that is not there"
