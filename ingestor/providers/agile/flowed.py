"""format=flowed (RFC 3676): lines that a mailer broke softly are joined again."""


def unflowed(text: str, *, delete_space: bool) -> str:
    """Return `text` (LF line ends) with soft line breaks joined and space-stuffing undone.

    A line that ends in a blank goes on in the next one of the same quote depth; `delete_space` (DelSp=yes)
    drops that blank. The signature separator `-- ` never flows. Quote marks stay: an SMS may begin so.
    """
    joined: list[str] = []
    pieces: list[str] = []
    depth = 0
    for line in text.split("\n"):
        content = line.lstrip(">")
        line_depth = len(line) - len(content)
        if pieces and line_depth != depth:
            joined.append("".join(pieces))
            pieces = []
        stuffed = content.startswith(" ")
        content = content[1:] if stuffed else content
        if not pieces:
            depth = line_depth
            marks = ">" * depth
            # A blank between the marks and the text is the layout of a quotation, not stuffing.
            pieces.append(f"{marks} " if depth and stuffed else marks)
        if content == "-- " or not content.endswith(" "):
            joined.append("".join((*pieces, content)))
            pieces = []
        else:
            pieces.append(content[:-1] if delete_space else content)
    if pieces:
        joined.append("".join(pieces))
    return "\n".join(joined)
