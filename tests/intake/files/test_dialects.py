"""Every dialect and container is a file with its expected outcome."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.intake.files.containers import COMPRESS, tar_of, zip_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import foreign_mail, mbox_of, sms_mail

DIALECTS = Path(__file__).parent / "dialects"

TWO = ["text 1", "text 2"]
QUOTED = "one\nFrom the start\n>From the quote\n>>From twice"
QUOTED_ONCE_MORE = "one\nFrom the start\n>>From the quote\n>>>From twice"
LOOKALIKE = "one\n\nFrom smsin@agiletelecom.com Mon Jan  8 09:00:00 2024\nSubject: not a mail\n\n>From here"
CLOSED = "See you\n\nFrom tomorrow on we are closed\nFrom 9:00 to 12:30 in 2024 only\n\nFrom: the desk"

# file, how it is read (a format, or as whole whatever its end: these lack the last line end), the texts,
# how many mails are ignored, quarantined, and bytes in gaps
CASES = [
    ("lf.mbox", None, TWO, 1, 0, 0),
    ("crlf.mbox", None, TWO, 1, 0, 0),
    ("no-final-newline.mbox", "whole", TWO, 1, 0, 0),
    ("truncated.mbox", "whole", TWO[:1], 1, 1, 0),
    ("nul-bytes.mbox", None, TWO, 0, 0, 612),
    ("nul-in-text.mbox", None, ["a\ufffdb", "text 2"], 0, 0, 0),
    ("no-date.mbox", None, TWO, 1, 0, 0),
    ("local-date.mbox", None, TWO, 0, 0, 0),
    ("rfc822-date.mbox", None, TWO, 1, 0, 0),
    ("thunderbird.mbox", None, TWO, 1, 0, 0),
    ("takeout.mbox", None, TWO, 1, 0, 0),
    ("from-in-text.mbox", None, [CLOSED, "text 2"], 0, 0, 0),
    ("mboxrd.mbox", None, [QUOTED, "text 2"], 0, 0, 0),
    ("mboxrd.mbox", "mboxo", [QUOTED_ONCE_MORE, "text 2"], 0, 0, 0),
    ("mboxo.mbox", "mboxo", ["one\nFrom the start", "text 2"], 0, 0, 0),
    ("mboxo.mbox", None, ["one\nFrom the start", "text 2"], 0, 0, 0),
    ("mboxcl.mbox", "mboxcl", ["one\nFrom the start", "text 2"], 0, 0, 0),
    ("mboxcl.mbox", None, ["one\n>From the start", "text 2"], 0, 0, 0),
    ("mboxcl2.mbox", None, [LOOKALIKE, "text 2"], 0, 0, 0),
    ("mboxcl2.mbox", "mboxcl2", [LOOKALIKE, "text 2"], 0, 0, 0),
    ("mboxcl2.mbox", "mboxrd", ["one", "text 2"], 1, 0, 0),
    ("wrong-length.mbox", None, ["one\nFrom the start", "text 2"], 0, 0, 0),
    ("length-to-the-end.mbox", "whole", TWO, 0, 0, 0),
    ("appended.mbox", None, TWO, 0, 0, 0),
    ("lead.mbox", None, TWO, 1, 0, 31),
    ("lost-separator.mbox", None, TWO, 1, 0, 0),
    ("byte-order-mark.mbox", None, TWO, 1, 0, 3),
    ("empty-mail.mbox", None, TWO[:1], 2, 0, 0),
    ("single.eml", None, TWO[:1], 0, 0, 0),
    ("single.eml", "eml", TWO[:1], 0, 0, 0),
    ("crlf.eml", None, TWO[:1], 0, 0, 0),
    ("separator.eml", None, TWO[:1], 0, 0, 0),
    ("separator.eml", "eml", TWO[:1], 0, 0, 0),
    ("byte-order-mark.eml", None, TWO[:1], 0, 0, 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "form", "texts", "ignored", "quarantined", "gaps"), CASES,
    ids=[f"{case[0]}-{case[1] or 'auto'}" for case in CASES],
)  # fmt: skip
def test_a_dialect_has_its_outcome(
    run_sqlite_import: Importer, name: str, form: str | None, texts: list[str], ignored: int,
    quarantined: int, gaps: int,
) -> None:  # fmt: skip
    """Each file ends in exactly the expected texts and counts, and a second time in nothing new."""
    options = ["--whole"] if form == "whole" else ["--format", form] if form else []
    done = run_sqlite_import(DIALECTS / name, *options)
    assert done.code == 0
    assert run_sqlite_import.texts == texts
    assert done.counts == (len(texts) + ignored + quarantined, len(texts), 0, ignored, quarantined, 0)
    assert f" + {gaps:,} in " in done.out
    again = run_sqlite_import(DIALECTS / name, *options)
    assert again.counts[1:3] == (0, len(texts))


ARCHIVE = ("archive.db", "archive.db-wal", "archive.db-shm")
BOX = mbox_of(sms_mail(1), foreign_mail(1), sms_mail(2))
MAILS = {"a/1.eml": sms_mail(1), "b.txt": b"no mail at all\n", "c/2": sms_mail(2, line_end=b"\r\n")}

CONTAINERS: dict[str, Callable[[], bytes]] = {
    **{f"mbox.{name}": lambda pack=pack: pack(BOX) for name, pack in COMPRESS.items()},
    **{f"eml.{name}": lambda pack=pack: pack(sms_mail(1)) for name, pack in COMPRESS.items()},
    **{f"tar.{name}": lambda pack=pack: pack(tar_of({"x": BOX})) for name, pack in COMPRESS.items()},
    "zip of mails": lambda: zip_of(MAILS),
    "tar of mails": lambda: tar_of(MAILS),
    "zip of an mbox": lambda: zip_of({"Takeout/Mail/All.mbox": BOX}),
    "tar of an mbox": lambda: tar_of({"All.mbox": BOX}),
    "zip of everything": lambda: zip_of({
        "x.mbox.gz": COMPRESS["gz"](BOX), "mails.tar": tar_of(MAILS), "inner.zip": zip_of(MAILS),
        "inner.tar.xz": COMPRESS["xz"](tar_of({"x": BOX})),
    }),
    "tar of everything": lambda: tar_of({
        "x.mbox.bz2": COMPRESS["bz2"](BOX), "mails.zip": zip_of(MAILS),
        "inner.tar.zst": COMPRESS["zst"](tar_of(MAILS)),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_gives_what_is_in_it(run_sqlite_import: Importer, tmp_path: Path, name: str) -> None:
    """Whatever a mailbox is packed in, and however often, its SMS come out, each once."""
    packed = tmp_path / "some name"
    packed.write_bytes(CONTAINERS[name]())
    done = run_sqlite_import(packed)
    assert done.code == 0
    assert run_sqlite_import.texts == (["text 1"] if name.startswith("eml") else TWO)
    assert run_sqlite_import(packed).counts[1] == 0
    assert {path.name for path in tmp_path.iterdir()} <= {*ARCHIVE, "some name"}
