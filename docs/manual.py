"""Write the manual pages and the completions of shells into a folder: ``python docs/manual.py share``.

The folder is then as a system's ``share``: ``make man`` writes it, and setup.py installs what is there. The pages of
the commands come from the commands (cli/manual.py); those of the two kinds of files are pages of this folder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docutils.core import publish_string

from etherws.cli import completion, manual

HERE = Path(__file__).resolve().parent

#: How the two pages of files are named, what they are about, and which page is the text.
FILES = {
    "etherws.toml": ("the options of a server or client, in a file", "configuration.rst"),
    "etherws-policy": ("what each client of a server may do", "policy.rst"),
}


def pages() -> dict[str, str]:
    """The source of all manual pages, by file name."""
    found = manual.manual_pages()
    for name, (summary, page) in FILES.items():
        text = re.sub(r"\A.*\n=+\n+", "", (HERE / page).read_text(encoding="utf-8"))
        keys = manual.file_keys() if name == "etherws.toml" else ""
        commands = manual.PAGES_OF_FILES[f"{name}(5)"]
        described = f"Description\n-----------\n\n{text}\n\n{keys}"
        found[f"{name}.5"] = manual.headed(name, summary, 5) + described + manual.see_also(list(commands))
    # Up to what --help says itself, of the environment.
    process = re.sub(r"\A.*\n=+\n+|\nEnvironment\n-+\n[\s\S]*", "", (HERE / "process.rst").read_text(encoding="utf-8"))
    for name in ("etherws-server.1", "etherws-client.1"):
        text, line, last = found[name].partition("See also\n--------\n")
        found[name] = text + process + "\n" + line + last
    return found


def roff(source: str) -> str:
    """A manual page in the language of man. A mistake in the source raises docutils' SystemMessage."""
    settings = {"report_level": 2, "halt_level": 2, "output_encoding": "unicode", "generator": False}
    # A link to another page is its text alone: the page is not on this machine.
    source = re.sub(r"`([^`<>]+?)\s+<[\w./-]+\.rst>`__", r"\1", source)
    written = str(publish_string(source, writer="manpage", settings_overrides=settings))
    # No words cut in two, no gaps between words: options stay whole, and can be searched for.
    written = re.sub(r"^\.TH .*\n", r".nr HY 0\n\g<0>.ad l\n", written, flags=re.MULTILINE)
    written = re.sub(r"^\.TS\n.*?^\.TE$", lambda match: plain_table(match[0]), written, flags=re.MULTILINE | re.DOTALL)
    # Readers and mandoc know NAME and SEE ALSO in capitals. In parentheses are units, such as ms.
    written = re.sub(r"^\.SH [^(\n]*", lambda match: match[0].upper(), written, flags=re.MULTILINE)
    # A heading has its own space below it.
    return re.sub(r"^(\.S[HS] .*\n)\.sp\n", r"\1", written, flags=re.MULTILINE)


def plain_table(table: str) -> str:
    """A table without lines, whose last column has all the room that is left: docutils would give each the same."""
    table = table.replace("box center;\n", "", 1)
    table = re.sub(
        r"^l((?:\|l)*)\|l\.$", lambda match: f"l{match[1].replace('|', ' ')} lx.", table, count=1, flags=re.MULTILINE
    )
    return re.sub(r"^_\n", "", table, flags=re.MULTILINE)


def main(folder: Path) -> None:
    """Write all into the folder."""
    files = {f"man/man{name[-1]}/{name}": roff(source) for name, source in pages().items()}
    files |= {place: completion.script(shell) for shell, place in completion.PLACES.items()}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
