"""What people write in an SMS: the texts of the sample mails, drawn by a seeded generator."""

from random import Random

_PLAIN = (
    "News ON", "STOP", "INFO", "OK grazie", "Confermo appuntamento per domani alle 9:30",
    "Il suo codice di verifica e {code}. Non comunicarlo a nessuno.", "Arrivo tra 10 minuti",
    "Buongiorno, vorrei sapere gli orari di apertura del negozio in via Roma. Grazie",
    "SI", "NO", "VOTO {code}", "Consegna {code} ricevuta, tutto bene", "1+1=2 & 3<4 \"ok\" 'x'",
    "Please call me back after 5pm, thanks", "Order #{code} has not arrived yet", "Annulla",
    ("Salve, il pacco {code} risulta in giacenza: posso passare a ritirarlo sabato mattina? Abito in zona "
    "e potrei venire anche prima delle otto, se siete aperti. In ogni caso aspetto una vostra conferma."),
)  # fmt: skip
_ACCENTED = (
    "Perché non è arrivato? Così non va, {code}", "Sì, alle 18 va bene. A più tardi!",
    "Costa 12,50 € – va bene?", "Über die Änderung für Herrn Müller: {code}", "Ça va très bien, à demain",
    "Il caffè è già pagato, città di Forlì “{code}”", "Più tardi… forse – non so",
)  # fmt: skip
_WIDE = (
    "Grande! 🎉👍 {code}", "😀", "Спасибо, всё получил {code}", "谢谢 {code}", "Ευχαριστώ πολύ",
    "Tanti auguri 🎂🎁 a te e famiglia ❤️", "👨‍👩‍👧 arriviamo alle 8",
)  # fmt: skip
_LINES = (
    "Prima riga {code}\nSeconda riga", "Lista:\n- pane\n- latte\n\n- uova {code}",
    "Inoltro:\nFrom: +393470000000\nTo: tutti\nDate/Time: 20200101000000\nBody: ciao {code}",
    "From here to there {code}\nFrom there to here", "Ciao\n.\n..fine {code}", "Text: {code}\nBody: no",
)  # fmt: skip


def draw_text(random: Random, *, charset: str) -> str:
    """Return one SMS text that `charset` (`ascii`, `cp1252` or `utf-8`) can carry; one in 200 is empty."""
    chance = random.random()
    if chance < 0.005:
        return ""
    if chance < 0.12:
        pool: tuple[str, ...] = _LINES
    elif charset == "ascii" or chance < 0.5:
        pool = _PLAIN
    elif charset == "cp1252" or chance < 0.8:
        pool = _ACCENTED
    else:
        pool = _WIDE
    text = random.choice(pool).format(code=random.randint(100000, 999999))
    if random.random() < 0.3:
        text += f" rif {random.randint(10**7, 10**8 - 1)}"
    return text
