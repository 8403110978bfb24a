"""Text that a person's terminal shows and does not obey."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ingestor import redaction
from ingestor.redaction import forget_secret, one_line, redact_secrets, register_secret


@given(st.text())
def test_one_line_moves_no_cursor_and_turns_nothing(text: str) -> None:
    """Whatever comes in, what comes out has no control character, no direction mark, no end of a line."""
    shown = one_line(text)

    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(letter) == "Cc" for letter in shown)
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not any(unicodedata.bidirectional(letter) in turning for letter in shown)


def test_what_people_write_stays_as_it_is() -> None:
    """Letters of any script, emoji joined by ZWJ and no-break blanks are no danger; the rest is named."""
    harmless = "Città, 5\u00a0€, \u0645\u0631\u062d\u0628\u0627 👩\u200d💻"
    assert one_line(harmless) == harmless
    assert one_line("a\x1b[2J\tb\r\nc\u202ed") == "a\\x1b[2J\\tb\\r\\nc\\u202ed"


def test_a_file_name_that_is_no_text_can_be_printed() -> None:
    """Bytes that are no UTF-8, as Python holds them in a file's name, become escapes that can be encoded."""
    name = b"sms-\xff.mbox".decode("utf-8", "surrogateescape")
    assert one_line(name).encode() == b"sms-\\xff.mbox"


def test_a_secret_that_is_over_leaves_nothing_behind() -> None:
    """A thousand tokens, one after the other, cost no memory; each is hidden as long as it is good."""
    before = len(redaction._secrets)
    for number in range(1000):
        token = f"token/{number}"
        register_secret(token)
        assert redact_secrets(f"Bearer {token} token%2F{number}") == "Bearer *** ***"
        forget_secret(token)

    assert len(redaction._secrets) == before
    assert redact_secrets("token/999") == "token/999"
