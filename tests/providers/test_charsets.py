"""The charset ladder that mails and POSTs share: labels as browsers take them, a bad byte is a character."""

import pytest

from ingestor.providers.charsets import decode_text
from ingestor.providers.posts import decode
from ingestor.record import storable


@pytest.mark.parametrize(
    ("label", "text", "codec"),
    [
        ("gb2312", "朱镕基囧", "gbk"), ("x-gbk", "囧", "gbk"), ("GB_2312-80", "镕", "gbk"),
        ("gb18030", "𠀀", "gb18030"),
        ("shift_jis", "髙橋①", "cp932"), ("x-sjis", "①", "cp932"), ("Windows-31J", "㈱", "cp932"),
        ("euc-kr", "똠방", "cp949"), ("ks_c_5601-1987", "똠", "cp949"), ("big5", "漢字", "big5hkscs"),
        ("iso-8859-1", "10€", "cp1252"), ("latin1", "“é”", "cp1252"), ("us-ascii", "10€", "cp1252"),
        ("iso-8859-9", "ğ–ş", "cp1254"), ("tis-620", "สวัสดี", "cp874"), ("x-mac-roman", "é", "mac_roman"),
        ("koi8-r", "Привет", "koi8_r"), ("iso-2022-jp", "こ", "iso2022_jp"), ("utf-7", "é", "utf_7"),
        ("iso-8859-8-i", "שלום", "iso8859_8"), ("ibm850", "perché", "cp850"),
        ("win-1251", "Привет", "cp1251"), ("windows1250", "čaj", "cp1250"),
    ],
)  # fmt: skip
def test_a_label_means_what_it_means_to_browsers(label: str, text: str, codec: str) -> None:
    """Each label is taken for the charset that its users mean, by mail and by POST."""
    assert decode_text(text.encode(codec), label).text == text
    assert decode(text.encode(codec), label)[0] == text


_CUT = "😀".encode()


@pytest.mark.parametrize("label", [None, "utf-8", "iso-8859-1", "us-ascii", "x-unknown"])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("città, però ".encode() + b"\xe0" + " così 10€".encode(), "città, però � così 10€"),
        (b"\x98\x80" + " è così".encode(), "�� è così"),
        ("è così ".encode() + _CUT[:3], "è così �"), (b"ciao " + _CUT[:2] + b"\r\n", "ciao �\r\n"),
        (b"ciao " + _CUT[:3], "ciao �"), ("costa 10€".encode()[:-1], "costa 10�"), (b"perch\xc3", "perch�"),
        (b"ok \xed\xa0\xbd\xed\xb8\x80 perch\xc3\xa9", "ok 😀 perché"), (b"ok \xed\xa0\xbd!", "ok �!"),
        (b"\xed\xa0\xbd\xed\xb8\x80 \xe0 perch\xc3\xa9", "😀 � perché"), (b"perch\xc3\xa9 \x80", "perché �"),
        (b"perch\xe9 cos\xec", "perché così"), (b"\x93Perch\xe9\x94 10\x80", "“Perché” 10€"),
        (b"\xe9t\xe9 \xabCAF\xc9\xbb", "été «CAFÉ»"), (b"AMANH\xc3", "AMANHÃ"), (b"10\x80", "10€"),
    ],
)  # fmt: skip
def test_one_bad_byte_costs_one_character(data: bytes, text: str, label: str | None) -> None:
    """What is UTF-8 but for a cut or stray byte stays so, what is Windows-1252 too, however it is called."""
    assert storable(decode_text(data, label).text)[0] == text
    assert storable(decode(data, label)[0])[0] == text


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("shift_jis", "髙橋です".encode("cp932")[:-1], "髙橋で�"),
        ("gb2312", "朱镕基".encode("gbk") + b"\xff", "朱镕基�"),
        ("windows-1251", "Привет ".encode("cp1251") + b"\x98", "Привет �"),
        ("windows-1252", "perché €".encode(), "perché €"), ("windows-1251", "привет".encode(), "привет"),
        ("windows-1252", "PERCHÉ…".encode("cp1252"), "PERCHÉ…"),
    ],
)  # fmt: skip
def test_a_declared_charset_is_believed_where_it_loses_least(label: str, data: bytes, text: str) -> None:
    """A bad byte does not disprove the declared charset; UTF-8 that calls itself another one is UTF-8."""
    assert storable(decode_text(data, label).text)[0] == text
    assert decode(data, label)[0] == decode_text(data, label).text


def test_what_was_a_nul_is_no_euro_sign() -> None:
    """Dovecot writes 0x80 for a NUL: where UTF-8 is declared it is a € only beside a figure."""
    read = [storable(decode_text(data, "utf-8").text)[0] for data in (b"STOP\x80 now", b"10 \x80", b"\x805")]

    assert read == ["STOP� now", "10 €", "€5"]


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("utf-16", "perché no".encode("utf-16")[:-1], "perché n�"),
        ("utf-16le", "no €".encode("utf-16-le"), "no €"), ("utf-16", "perché".encode(), "perché"),
        ("utf-16", b"not at all", "not at all"), ("utf-32", "no €".encode("utf-32"), "no €"),
        ("iso-2022-jp", "こんにちは".encode("iso2022_jp")[:-4], "こんにち�"),
        ("hz-gb-2312", "朱基".encode("hz"), "朱基"), (None, b"a\xc0\x80b \xed\xa0\xbd\xed\xb8\x80", "a�b 😀"),
    ],
)  # fmt: skip
def test_what_can_pass_for_ascii_is_believed_where_it_can_be(label: str, data: bytes, text: str) -> None:
    """UTF-16 without a NUL is none; a bad byte in it, or in a charset of seven bits, costs a character."""
    assert storable(decode_text(data, label).text)[0] == text


def test_a_byte_order_mark_goes_before_the_label() -> None:
    """UTF-16 and UTF-8 with their marks are read so, whatever is declared or not."""
    assert decode_text("perché".encode("utf-16"), None).text == "perché"
    assert decode_text("perché".encode("utf-16"), "iso-8859-15").text == "perché"
    assert decode_text("perché".encode("utf-16"), "utf-8").text == "perché"
    assert decode_text("perché".encode("utf-8-sig"), "gbk").text == "\ufeffperché"
