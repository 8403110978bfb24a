"""Writes the man page and bash's completion from the command line's own parser: `manual.py FOLDER`."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from ingestor import __version__
from ingestor.cli import COMMANDS, GLOBAL_OPTIONS, build_parser

_COMPLETION = """\
# bash completion for ingestor
_ingestor() {
    local current="${COMP_WORDS[COMP_CWORD]}" command="" word key
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        key="${command:+$command }$word"
        [[ -n "${_ingestor_words[$key]-}" ]] && command="$key"
    done
    mapfile -t COMPREPLY < <(compgen -W "${_ingestor_words[${command:-/}]}" -- "$current")
    [[ ${#COMPREPLY[@]} -gt 0 || "$current" == -* ]] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
complete -F _ingestor ingestor
"""


def main() -> None:
    """Write `ingestor.1` and `ingestor.bash` into the folder that the first argument names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["COLUMNS"] = "80"
    (folder / "ingestor.1").write_text(_manual(), encoding="utf-8")
    (folder / "ingestor.bash").write_text(_completion(), encoding="utf-8")


def _parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command, and each verb of one, with its parser."""
    for name, (module, _) in COMMANDS.items():
        [command] = _children(build_parser(name, import_module(module))).values()
        yield name, command
        for verb, parser in _children(command).items():
            yield f"{name} {verb}", parser


def _children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _manual() -> str:
    top = io.StringIO()
    with contextlib.redirect_stdout(top), contextlib.suppress(SystemExit):
        build_parser(None, None).parse_args(["--help"])
    text = f'.TH INGESTOR 1 "" "ingestor {__version__}" "User Commands"\n.SH NAME\ningestor \\- '
    text += (
        "archive of inbound SMS (Agile Telecom)\n.SH SYNOPSIS\n.nf\n" + _escaped(top.getvalue()) + "\n.fi\n"
    )
    text += ".SH COMMANDS\n"
    for name, parser in _parsers():
        text += f".SS {name}\n.nf\n{_escaped(parser.format_help())}\n.fi\n"
    return text + ".SH FILES\n/etc/ingestor/ingestor.toml, /etc/ingestor/conf.d/*.toml, /var/lib/ingestor\n"


def _escaped(text: str) -> str:
    """Return `text` so that troff shows it as it stands."""
    text = text.strip().replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n"))


def _completion() -> str:
    words: dict[str, list[str]] = {"/": [*COMMANDS, *GLOBAL_OPTIONS, "--help", "--version"]}
    for name, parser in _parsers():
        options = [option for action in parser._actions for option in action.option_strings]
        words[name] = [*_children(parser), *(one for one in options if one.startswith("--"))]
    lines = "".join(f"    [{name!r}]='{' '.join(listed)}'\n" for name, listed in words.items())
    return f"declare -A _ingestor_words=(\n{lines})\n{_COMPLETION}"


main()
