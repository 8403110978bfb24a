"""Kinds are told from content."""

import tarfile
from pathlib import Path

import pytest

from ingestor.intake.files.walk import Kind, sniff
from tests.intake.files.containers import tar_of, zip_of

DIALECTS = Path(__file__).parent / "dialects"


@pytest.mark.parametrize("path", sorted(DIALECTS.glob("*.mbox")), ids=lambda path: path.name)
def test_every_dialect_is_a_mailbox(path: Path) -> None:
    """Whatever stands at its beginning, a mailbox is no single mail and not unknown."""
    assert sniff(path.read_bytes()) is Kind.MBOX


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", Kind.EMPTY),
        (b"Return-Path: <a@example.org>\nSubject: x\n\nFrom tomorrow\n", Kind.MAIL),
        (b"\xef\xbb\xbfSubject: x\n\n", Kind.MAIL),
        (b"\n\nSubject: x\n\n", Kind.MAIL),
        (b"dear all,\n\nFrom tomorrow on\n", Kind.UNKNOWN),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), Kind.UNKNOWN),
        (b"BZh is how this text begins", Kind.UNKNOWN),
        (zip_of({}), Kind.ZIP),
        (zip_of({"a": b"b"}), Kind.ZIP),
        (tar_of({"a": b"b"}), Kind.TAR),
        (bytes(1024), Kind.MBOX),
    ],
)
def test_content_decides(head: bytes, kind: Kind) -> None:
    """A few bytes are enough, and text that only begins alike is not taken for more."""
    assert sniff(head) is kind


def test_an_old_tar_is_told_by_its_sum() -> None:
    """A tar archive from before the magic is recognised."""
    head = bytearray(tar_of({"a": b"b"})[512:1024])
    head[257:265] = bytes(8)
    head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 0x20)
    assert tarfile.TarInfo.frombuf(bytes(head), "utf-8", "strict").name == "a"
    assert sniff(bytes(head)) is Kind.TAR
