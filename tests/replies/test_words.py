"""What an SMS means for being written to: each rule a row, and what holds of every text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.replies.words import (
    COURTESY,
    HELP,
    ORDINARY,
    START,
    STOP,
    STOP_ALL,
    Kind,
    Verdict,
    Words,
    cleaned,
)

BUILT_IN = Words()
OUT, OUT_OF_ALL, AGAIN, HELPED, LOOKED_AT, NEARLY, NOTHING = (
    "out", "out of all", "start", "help", "review", "nearly start", "nothing",
)  # fmt: skip

RULES = [
    # exact after cleaning, always on
    *((word, OUT) for word in STOP),
    *((word, OUT_OF_ALL) for word in STOP_ALL),
    *((word, AGAIN) for word in START),
    *((word, HELPED) for word in HELP),
    *((word.lower(), OUT) for word in STOP),
    ("OPT-OUT", OUT),
    # off, because they are ordinary replies
    *((word, NOTHING) for words in ORDINARY.values() for word in words),
    ("NO", NOTHING),
    ("YES", NOTHING),
    ("SI", NOTHING),
    ("OK", NOTHING),
    ("INFO", NOTHING),
    # cleaning: compatibility forms, case, marks, width, quotes, punctuation, blanks
    ("ＳＴＯＰ", OUT),
    ("𝐒𝐓𝐎𝐏", OUT),
    ("ⓈⓉⓄⓅ", OUT),
    ("sToP", OUT),
    ("Arrêt!", OUT),
    ("ARRE\u0302T", OUT),
    ("Désabonner", OUT),
    ("S\u200bT\u200cO\u200dP", OUT),
    ("\ufeffSTOP", OUT),
    ("ST\u00adOP", OUT),
    ("\u202eSTOP\u202c", OUT),
    ("«STOP»", OUT),
    ("“Stop”.", OUT),
    ("'stop'", OUT),
    ("*STOP*", OUT),
    ("  stop \n", OUT),
    ("STOP\u00a0ALL", OUT_OF_ALL),
    ("stop \t  all", OUT_OF_ALL),
    # every dash is one
    *((f"OPT{dash}OUT", OUT) for dash in "-‐‑‒–—―−﹘﹣－"),
    ("STOP-ALL", OUT_OF_ALL),
    # a Turkish phone's capital
    ("DİSİSCRİVİ", OUT),
    # symbols and emoji at either end
    ("STOP 🙏", OUT),
    ("🛑 STOP", OUT),
    ("STOP 🙏🏽", OUT),
    ("STOP ☹️", OUT),
    ("STOP €", OUT),
    ("👨‍👩‍👧 stop", OUT),
    # a tail of courtesy is no other text; in front of the word it is
    *((f"STOP {tail}", OUT) for tail in COURTESY),
    ("Stop. Thank you!", OUT),
    ("STOP, s’il vous plaît", OUT),
    ("STOP grazie 🙂", OUT),
    ("STOP ALL please", OUT_OF_ALL),
    ("STOP please thanks", OUT),
    ("please stop", LOOKED_AT),
    ("please stop it", LOOKED_AT),
    ("grazie stop", LOOKED_AT),
    ("thanks", NOTHING),
    ("START please", AGAIN),
    # one stop word, again and again
    ("STOP STOP STOP", OUT),
    ("stop, stop!", OUT),
    ("STOP ALL STOP ALL", OUT_OF_ALL),
    ("STOP STOP grazie", OUT),
    ("STOP UNSUBSCRIBE", LOOKED_AT),
    ("START START", NEARLY),
    # scopes
    ("stop tutti", OUT_OF_ALL),
    ("STOP SMS", OUT),
    ("stop pub", OUT),
    ("ARRETE", OUT),
    ("UNSTOP", AGAIN),
    ("Début", AGAIN),
    # contains: a whole word, its last letter stretched, digits glued to it
    ("STOP 12345", LOOKED_AT),
    ("We have got to STOP this bill", LOOKED_AT),
    ("I want to opt out", LOOKED_AT),
    ("merci d'arrêter les SMS", LOOKED_AT),
    ("stopppp", LOOKED_AT),
    ("unsubscribeee me", LOOKED_AT),
    ("STOP45000", LOOKED_AT),
    ("45000stop", LOOKED_AT),
    ("STOP!!! 1", LOOKED_AT),
    ("stoppen", NOTHING),
    ("stopped", NOTHING),
    ("the bus-stops", NOTHING),
    ("nonstop", NOTHING),
    ("opt for out", NOTHING),
    # look-alikes and letters one by one
    ("ЅТОР", LOOKED_AT),
    ("ѕtор", LOOKED_AT),
    ("ΑRRΕΤ", LOOKED_AT),
    ("ꜱᴛᴏᴘ", LOOKED_AT),
    ("🅢🅣🅞🅟", LOOKED_AT),
    ("ЅТОР аll messages", LOOKED_AT),
    ("S T O P", LOOKED_AT),
    ("S.T.O.P.", LOOKED_AT),
    ("s-t-o-p", LOOKED_AT),
    ("a b c d", NOTHING),
    # phrases without any stop word
    ("leave me alone", LOOKED_AT),
    ("no quiero recibir más mensajes", LOOKED_AT),
    ("Non scrivetemi più", LOOKED_AT),
    # what is nearly START
    ("START ads", NEARLY),
    ("SUBSCRIBE", NEARLY),
    ("start1", NEARLY),
    ("please start", NEARLY),
    ("restart the server", NOTHING),
    ("stop or start", LOOKED_AT),
    # nothing at all
    ("", NOTHING),
    ("?!", NOTHING),
    ("Your code is 123456", NOTHING),
    ("Ci vediamo domani alle 8, è confermato", NOTHING),
    ("HELP me", NOTHING),
]


def _named(verdict: Verdict | None) -> str:
    if verdict is None:
        return NOTHING
    if verdict.kind is Kind.STOP and verdict.every:
        return OUT_OF_ALL
    return {
        Kind.STOP: OUT,
        Kind.START: AGAIN,
        Kind.HELP: HELPED,
        Kind.REVIEW: LOOKED_AT,
        Kind.NEARLY_START: NEARLY,
    }[verdict.kind]


@pytest.mark.parametrize(("text", "meaning"), RULES)
def test_each_rule(text: str, meaning: str) -> None:
    """A text means exactly what its rule says."""
    assert _named(BUILT_IN.judge(text)) == meaning


@pytest.mark.parametrize("language", sorted(ORDINARY))
def test_a_language_adds_its_ordinary_words(language: str) -> None:
    """The ordinary replies of a language are opt-outs where it is listed, and only its own."""
    words = Words(languages=[language])

    for other, listed in ORDINARY.items():
        for word in listed:
            assert _named(words.judge(word)) == (OUT if other == language else NOTHING)


def test_the_users_own_words_count_like_the_built_in_ones() -> None:
    """Own words close, close all, undo and call for help, cleaned like an SMS and with what stands around."""
    words = Words(stop=["Basta!", "стоп"], stop_all=["BASTA A TUTTI"], start=["RIPRENDI"], help_=["INFO"])

    assert _named(words.judge("BASTA, grazie")) == OUT
    assert _named(words.judge("basta a tutti")) == OUT_OF_ALL
    assert _named(words.judge("Стоп")) == OUT
    assert _named(words.judge("ora basta")) == LOOKED_AT
    assert _named(words.judge("riprendi")) == AGAIN
    assert _named(words.judge("info?")) == HELPED
    assert _named(words.judge("STOP")) == OUT


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"stop": ["!!"]}, "no letter"),
        ({"start": ["stop"]}, "is a word for stop already"),
        ({"languages": ["xx"]}, "there are no words for 'xx'"),
    ],
)
def test_words_that_cannot_be_are_refused(own: dict[str, list[str]], says: str) -> None:
    """A word that says nothing, or that would mean two things, is refused with the reason."""
    with pytest.raises(ValueError, match=says):
        Words(**own)


def test_the_mark_follows_the_words() -> None:
    """Two lists that judge alike have one mark, whatever their order; another list has another."""
    assert Words(stop=["a", "b"]).mark == Words(stop=["B", "a"]).mark
    assert Words(stop=["a"]).mark != Words().mark


@given(st.text())
def test_any_text_has_a_verdict_that_its_look_does_not_change(text: str) -> None:
    """Nothing breaks the judge, and another case, form or wrapping of a text means the same."""
    verdict = BUILT_IN.judge(text)

    assert BUILT_IN.judge(f" “{text}”… ") == verdict
    assert BUILT_IN.judge(unicodedata.normalize("NFD", text)) == verdict


@given(st.text(alphabet="stop arelv1.,è🙂-ОТ", max_size=30))
def test_the_quick_look_overlooks_nothing(text: str) -> None:
    """What a quick look takes for harmless is an ordinary SMS by the whole rules, too."""
    slow = Words()
    slow._quick = False

    assert slow.judge(text) == BUILT_IN.judge(text)


@given(st.sampled_from([*STOP, *STOP_ALL]), st.text(min_size=1))
def test_only_a_text_that_is_the_word_and_courtesy_opts_out(word: str, more: str) -> None:
    """Whatever stands beside a stop word: nobody is opted out by it, unless it is courtesy or no word."""
    tail = cleaned(more)
    courteous = {" ".join(cleaned(one)) for one in COURTESY}
    verdict = BUILT_IN.judge(f"{word} {more}")
    opted_out = verdict is not None and verdict.kind is Kind.STOP

    if not tail or " ".join(tail) in courteous:
        assert opted_out
    elif opted_out:
        known = {*map(cleaned, [*STOP, *STOP_ALL])}
        assert cleaned(f"{word} {more}") in known or tail == cleaned(word)
