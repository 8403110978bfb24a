"""The words themselves: which mean an opt-out, and which only look like one.

Sources: the required words of Twilio, AWS, Telnyx and the FCC (47 CFR 64.1200(a)(10)) in English, New
Brunswick's public code and Twilio Proxy in French, Agile's best practices (STOP and STOP ALL as the minimum).
No vendor publishes a list in Italian, Spanish or German: those words are ours.
"""

from typing import Final

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
