"""What an SMS says about being written to: an opt-out, the undoing of one, a call for help, or a doubt.

Pure: it knows the text alone. Whether a START undoes anything depends on what came before; the views over
the events know that.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import chain, groupby
from typing import Final, NamedTuple

# The required words of Twilio, AWS, Telnyx and the FCC (47 CFR 64.1200(a)(10)) in English, New Brunswick's
# public code and Twilio Proxy in French, Agile's best practices (STOP and STOP ALL as the minimum). No vendor
# publishes a list in Italian, Spanish or German: those words are ours.
STOP: Final = (
    "STOP", "STOPP", "STOP SMS", "STOP PUB", "UNSUBSCRIBE", "OPTOUT", "OPT OUT", "REVOKE", "ARRET", "ARRETE",
    "ARRETER", "DISISCRIVI", "DISISCRIVIMI", "CANCELLAMI", "REVOCA", "BAJA", "ABMELDEN", "DESABONNER",
)  # fmt: skip
"""Close the number written to. Always on. A dash counts as a blank: OPT-OUT is among them."""

STOP_ALL: Final = (
    "STOP ALL", "STOPALL", "STOP TUTTO", "STOP TUTTI", "STOP TOUT", "STOP ALLES", "UNSUBSCRIBE ALL",
)  # fmt: skip
"""Close every number of ours. Always on."""

START: Final = ("START", "UNSTOP", "DEBUT")
"""Undo a STOP, and nothing else."""

HELP: Final = ("HELP", "AIDE", "AIUTO", "HILFE", "AYUDA")

ORDINARY: Final = {
    "en": ("END", "QUIT", "CANCEL", "REMOVE"),
    "it": ("BASTA", "ANNULLA", "CANCELLA"),
    "es": ("CANCELAR",),
    "de": ("ENDE",),
    "fr-ca": ("TD",),
}
"""Ordinary replies that somebody may want to be opt-outs (END, QUIT, CANCEL: the FCC does), by language."""

COURTESY: Final = (
    "please", "thanks", "thank you", "thx", "grazie", "per favore", "danke", "bitte", "merci", "svp",
    "s'il vous plaît", "gracias", "por favor",
)  # fmt: skip
"""Behind a word they change nothing."""

PHRASES: Final = (
    "leave me alone", "do not text", "don't text", "dont text", "do not message", "don't message",
    "do not contact", "don't contact", "stopping these messages", "no more messages", "no more texts",
    "take me off", "remove me", "remove my number", "non scrivetemi", "non scrivermi", "non contattatemi",
    "non contattarmi", "non mandatemi più", "non inviatemi più", "non voglio più", "non desidero più",
    "toglietemi", "cancellatemi", "lasciatemi in pace", "no quiero recibir", "no me escriban",
    "no me escribas", "no me manden", "dejen de escribirme", "quítenme", "ne m'écrivez plus",
    "ne me contactez plus", "ne plus recevoir", "ne m'envoyez plus", "laissez moi tranquille",
    "keine sms mehr", "keine nachrichten mehr", "lasst mich in ruhe", "nicht mehr schreiben",
)  # fmt: skip
"""Nobody is opted out by one of these; a person looks at them."""

NEARLY_START: Final = (
    "SUBSCRIBE", "RESUBSCRIBE", "OPTIN", "OPT IN", "ISCRIVI", "ISCRIVIMI", "RIATTIVA", "ABONNER",
    "REABONNER", "ANMELDEN", "SUSCRIBIR",
)  # fmt: skip
"""From somebody who is out a person looks at them."""

_CYRILLIC = "АаВЕеЅѕІіЈјКкМмНОоРрСсТтУуХхԁԚԛԜԝӀӏ" + "aabeessiijjkkmmhooppccttuuxxdqqwwll"
_GREEK = "ΑαΒβΕΖΗΙιΚκΜΝνΟοΡρΤτΥυΧχϹϲ" + "aabbezhiikkmnvoopp" + "ttyuxxcc"
_ARMENIAN = "ՏսօՕոհ" + "suoonh"
_SMALL = "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ" + "abcdefghijklmnoprstuvwyz"


def _pairs(letters: str) -> dict[str, str]:
    half = len(letters) // 2
    return dict(zip(letters[:half], letters[half:], strict=True))


LOOK_ALIKES: Final = {
    **_pairs(_CYRILLIC), **_pairs(_GREEK), **_pairs(_ARMENIAN), **_pairs(_SMALL),
    **{
        chr(first + number): chr(ord("a") + number)
        for first in (0x1F150, 0x1F170, 0x1F1E6)  # white on black circles and squares, letters of flags
        for number in range(26)
    },
}  # fmt: skip
"""Letters of other alphabets that look like ours, with ours."""

RULES_VERSION: Final = 1
"""Goes up when the same words mean something else: old SMS are then read again."""

_WORD = re.compile(r"[^\W_]+")
_PIECE = 24  # letters: a longer word is looked at in pieces
_ASCII_LETTERS = re.compile(rf"[a-z]{{1,{_PIECE}}}")  # seven times as fast as the next one, for all alphabets
_LETTERS = re.compile(rf"[^\W\d_]{{1,{_PIECE}}}")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LOOK_ALIKES = str.maketrans(LOOK_ALIKES)
_LOOK_ALIKE = frozenset(LOOK_ALIKES)
_LEAST_SPELLED = 3
_SPELLED_OUT = bytes([1] * _LEAST_SPELLED)  # lengths of words
_MOST_WORDS = 40  # of an SMS that is a word and nothing else, however often and politely

Tokens = tuple[str, ...]


class Kind(StrEnum):
    """What a text means; a text that means nothing of these has no verdict."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    REVIEW = "review"
    """It may be an opt-out: a person decides."""
    NEARLY_START = "nearly_start"
    """From somebody who is out a person decides, else it is nothing."""


class Verdict(NamedTuple):
    """What a text means, for `every` number of ours or one, and by which word of the lists."""

    kind: Kind
    every: bool
    rule: str


class Words:
    """The words that count here: the built-in ones, those of `languages`, and the user's own.

    `mark` is another one where the same text might get another verdict. Raises ValueError where a word of
    the user's has no letter or digit, stands in two lists, or a language is none of `ORDINARY`.
    """

    def __init__(
        self, *, languages: Iterable[str] = (), stop: Iterable[str] = (), stop_all: Iterable[str] = (),
        start: Iterable[str] = (), help_: Iterable[str] = (),
    ) -> None:  # fmt: skip
        ordinary = [word for language in languages for word in _ordinary(language)]
        self._exact: dict[Tokens, tuple[Kind, bool, str]] = {}
        for kind, every, words in (
            (Kind.STOP, False, (*STOP, *ordinary, *stop)),
            (Kind.STOP, True, (*STOP_ALL, *stop_all)),
            (Kind.START, False, (*START, *start)),
            (Kind.HELP, False, (*HELP, *help_)),
        ):
            for word in words:
                self._add(word, kind, every)
        self._stops = _Finder(key for key, (kind, _, _) in self._exact.items() if kind is Kind.STOP)
        starts = [key for key, (kind, _, _) in self._exact.items() if kind is Kind.START]
        self._starts = _Finder([*starts, *map(cleaned, NEARLY_START)])
        self._phrases = _Finder(map(cleaned, PHRASES))
        known = {*self._stops.phrases, *self._starts.phrases, *self._phrases.phrases, *self._exact}
        self._single = frozenset(one[0] for one in known if len(one) == 1)
        several = [one for one in known if self._single.isdisjoint(one)]
        self._several: dict[str, list[str]] = {}
        for one in several:
            self._several.setdefault(max(one, key=len), []).append(f" {' '.join(one)} ")
        squeezed = (*self._stops.squeezed, *self._starts.squeezed)
        stretched = {word + word[-1] * more for word in squeezed for more in range(1, _PIECE - len(word) + 1)}
        self._telling = self._single | stretched | self._several.keys()
        # A user's own word that is very long, or has a digit in it, is beyond the quick look.
        self._quick = all(map(_LETTERS.fullmatch, (*self._single, *squeezed, *chain(*several))))
        given = sorted((" ".join(key), *map(str, value)) for key, value in self._exact.items())
        self.mark = hashlib.sha256(repr((RULES_VERSION, given)).encode()).digest()[:16]

    def judge(self, text: str) -> Verdict | None:
        """Return what `text` means, None where it is an ordinary SMS."""
        plain = _plain(text)
        foreign = not text.isascii() and not _LOOK_ALIKE.isdisjoint(text)
        alike = _plain(text.translate(_LOOK_ALIKES)) if foreign else plain
        if self._quick and self._harmless(plain) and (alike == plain or self._harmless(alike)):
            return None
        tokens = tuple(_WORD.findall(plain))
        return self._exactly(tokens) or self._in_doubt(tokens, tuple(_WORD.findall(alike)))

    def _add(self, word: str, kind: Kind, every: bool) -> None:
        key = cleaned(word)
        if not key:
            raise ValueError(f"{word!r} has no letter and no digit")
        known = self._exact.get(key)
        if known is not None and known[0] is not kind:
            raise ValueError(f"{word!r} is a word for {known[0]} already, and cannot be one for {kind}")
        self._exact[key] = (kind, every, " ".join(key).upper())

    def _harmless(self, plain: str) -> bool:
        """Say whether nothing in a text can matter: this is asked of every SMS that is stored."""
        words = (_ASCII_LETTERS if plain.isascii() else _LETTERS).findall(plain)
        if not self._telling.isdisjoint(words) and self._may_tell(words):
            return False
        return _SPELLED_OUT not in bytes(map(len, words))

    def _may_tell(self, words: Sequence[str]) -> bool:
        """Say whether `words` have more of a phrase than the word it is looked for by."""
        telling = self._telling.intersection(words)
        if not telling <= self._several.keys():
            return True
        whole = f" {' '.join(words)} "
        return any(phrase in whole for word in telling for phrase in self._several[word])

    def _exactly(self, tokens: Tokens) -> Verdict | None:
        tail = ""
        while 0 < len(tokens) <= _MOST_WORDS:
            if (found := self._exact.get(tokens)) is not None:
                kind, every, word = found
                return Verdict(kind, every, f"the word {word}{tail}")
            unit = _repeated(tokens)
            if unit is not None and (found := self._exact.get(unit)) is not None and found[0] is Kind.STOP:
                return Verdict(Kind.STOP, found[1], f"the word {found[2]}, again and again{tail}")
            tokens, tail = _without_courtesy(tokens), " and a word of courtesy"
        return None

    def _in_doubt(self, tokens: Tokens, alike: Tokens) -> Verdict | None:
        if (word := self._stops.find(tokens)) is not None:
            return Verdict(Kind.REVIEW, False, f"the word {word} among others")
        if (word := self._stops.find(_joined(tokens))) is not None:
            return Verdict(Kind.REVIEW, False, f"the letters of {word}, one by one")
        if (word := self._stops.find(alike) or self._stops.find(_joined(alike))) is not None:
            return Verdict(Kind.REVIEW, False, f"letters that look like {word}")
        if (phrase := self._phrases.find(tokens)) is not None:
            return Verdict(Kind.REVIEW, False, f"the words {phrase}")
        if (word := self._starts.find(tokens)) is not None:
            return Verdict(Kind.NEARLY_START, False, f"the word {word}, or nearly")
        return None


class _Finder:
    """Finds words and phrases among others: whole, the last letter stretched, or digits glued to them."""

    def __init__(self, phrases: Iterable[Tokens]) -> None:
        self.phrases = tuple(phrases)
        self.squeezed = {_squeezed(one[0]): one[0] for one in reversed(self.phrases) if len(one) == 1}
        self._single = {one[0] for one in self.phrases if len(one) == 1}
        self._several = [one for one in self.phrases if len(one) > 1]

    def find(self, tokens: Tokens) -> str | None:
        """Return the first word or phrase that is in `tokens`, in capitals."""
        for token in tokens:
            if token in self._single:
                return token.upper()
            bare = token.strip("0123456789")
            if bare in self._single:
                return bare.upper()
            if _squeezed(bare) != bare and (word := self.squeezed.get(_squeezed(bare))) is not None:
                return word.upper()
        whole = f" {' '.join(tokens)} "
        found = next((one for one in self._several if f" {' '.join(one)} " in whole), None)
        return None if found is None else " ".join(found).upper()


def cleaned(text: str) -> Tokens:
    """Return the words of `text` as they are compared: no case, no marks, nothing but letters and digits.

    NFKC takes full-width and mathematical letters for plain ones; marks (ARRÊT) and characters without width
    go; dashes, quotes, punctuation, symbols and emoji only part words. İ becomes i, as on a Turkish phone.
    """
    return tuple(_WORD.findall(_plain(text)))


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    return _NOT_ASCII.sub(lambda match: _plain_form(match[0]), text).casefold()


@lru_cache(maxsize=4096)
def _plain_form(character: str) -> str:
    """Return letters and digits without marks: mostly ASCII, which is looked through sooner."""
    parts = unicodedata.normalize("NFKD", character)
    kept = (one for one in parts if unicodedata.category(one) not in {"Mn", "Mc", "Me", "Cf"})
    return "".join(one if one.isalnum() else " " for one in kept)


def _ordinary(language: str) -> tuple[str, ...]:
    try:
        return ORDINARY[language.casefold()]
    except KeyError:
        raise ValueError(f"there are no words for {language!r}, only for {', '.join(ORDINARY)}") from None


_TAILS = tuple(map(cleaned, COURTESY))


def _without_courtesy(tokens: Tokens) -> Tokens:
    """Return `tokens` without one expression of courtesy at the end; empty where there is none."""
    for tail in _TAILS:
        if tokens[-len(tail) :] == tail:
            return tokens[: -len(tail)]
    return ()


def _repeated(tokens: Tokens) -> Tokens | None:
    """Return what `tokens` say twice or more and nothing else, None where they do not."""
    for length in range(1, len(tokens) // 2 + 1):
        unit = tokens[:length]
        if len(tokens) % length == 0 and unit * (len(tokens) // length) == tokens:
            return unit
    return None


def _joined(tokens: Sequence[str]) -> Tokens:
    """Return each run of single letters as one word: S T O P."""
    runs = ["".join(run) for single, run in groupby(tokens, lambda token: len(token) == 1) if single]
    return tuple(run for run in runs if len(run) >= _LEAST_SPELLED)


def _squeezed(word: str) -> str:
    """Return `word` with its last letter once: STOPPPP is STOP."""
    return word.rstrip(word[-1]) + word[-1] if word else word
