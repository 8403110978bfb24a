"""Files that hold mail, or may, in a form that is not read here: called by name, with what to do.

Taking such a file for text would end well and lose what is in it, and forcing a reading makes an SMS of bytes
that are none. Magic numbers: libmagic, and for Dovecot's own `istream-lz4` and `dcrypt-openssl`.
"""

import re

_UNPACK = "unpack it and import the result"
_MAGIC = (
    (b"!BDN", "an Outlook data file (PST or OST); convert it with `readpst -D -o OUT FILE`, and import OUT"),
    (
        b"\xcf\xad\x12\xfe",
        "an Outlook Express mailbox (DBX); convert it with `undbx`, and import what it writes",
    ),
    (
        b"CRYPTED\x03\x07",
        "encrypted by Dovecot's mail_crypt; read it through IMAP, or write it anew by `doveadm backup`",
    ),
    (
        b"Dovecot-LZ4\r*\x9b\xc5",
        "compressed by Dovecot with lz4; read it through IMAP, or write it anew by `doveadm backup`",
    ),
    (b"\x04\x22\x4d\x18", f"lz4 data; {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (b"LZIP\x01", f"lzip data; {_UNPACK}"),
    (b"\x89LZO\x00\r\n", f"lzop data; {_UNPACK}"),
    (b"\x1f\x9d", f"compress (.Z) data; {_UNPACK}"),
    (b"]\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00", f"lzma data of the old form; {_UNPACK}"),
    (b"\x01\x01\x01\x01\n", "an MMDF mailbox; write it as an mbox, by mutt for example, and import that"),
    (b"BABYL OPTIONS:", "a Babyl mailbox of Emacs; write it as an mbox (`unrmail`), and import that"),
    (b"*mbx*\r\n", "an MBX mailbox of UW-IMAP; write it as an mbox by `mailutil copy`, and import that"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MSG_STREAM = "__substg1.0_".encode("utf-16-le")
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_BEGINNINGS = (*(magic for magic, _ in _MAGIC), _OLE, *_UTF_16)
_MAIL_LIKE = re.compile(r"(?:From |[!-9;-~]{1,100}:)")
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PROPERTY_LIST = re.compile(rb"\s*(?:bplist0|(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE plist\b|<plist\b))")
# Of these every mail has one, whatever else stands before it.
_FIELD = re.compile(
    rb"^(?:from|to|subject|date|received|message-id|return-path|delivered-to|mime-version|content-type"
    rb"|x-[!-9;-~]{1,100})[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_LOOKED_AT = 1024


def refusal(head: bytes) -> str | None:
    """Return what begins with `head` and what to do about it, None where it is nothing of the kind."""
    if not head.startswith(_BEGINNINGS):
        return None
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head.startswith(_OLE) and _MSG_STREAM in head:
        return "an Outlook message (MSG); save it as .eml, by `msgconvert` for example, and import that"
    encoding = _UTF_16.get(head[:2])
    if encoding and _MAIL_LIKE.match(head[2:400].decode(encoding, "replace").lstrip()):
        return "mail that was saved as UTF-16; save it as UTF-8, by `iconv` for example, and import that"
    return None


def why_no_mail(head: bytes) -> str | None:
    """Return why what begins with `head` cannot be a mail, however it is to be read; None where it can."""
    if not head.strip(b"\0"):
        return "holds NUL bytes alone, as a crash leaves them: what stood there is lost"
    if _PROPERTY_LIST.match(head):
        return "is a property list of Apple's, no mail"
    if b"\r" in head and b"\n" not in head and head.startswith(b"From "):
        return "has line ends of CR alone, as an old Mac writes them; convert it by `tr '\\r' '\\n'`"
    beginning = head[:_LOOKED_AT]
    # Compressed or encrypted bytes have a tenth of these; text in any encoding of mail has hardly one.
    if len(_NOT_TEXT.findall(beginning)) * 50 > len(beginning):
        return "is neither mail, mailbox nor archive: no text, and in no form that is known here"
    if not _FIELD.search(head):
        return "has no header, and is no mail"
    return None
