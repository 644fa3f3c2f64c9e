"""Sphinx's configuration: ``make docs`` builds docs/_build/html of the pages in this folder.

The pages are read on GitHub as well, so they link as plain reStructuredText does: to a file, as in ``policy.rst``.
Here such a link, and each literal that names a page from the top of the checkout, leads to the page's HTML. A link that
leads nowhere is a warning, and warnings are errors. cli/manual.py writes the reference of the commands, and messages.py
the page of all messages.
"""

from __future__ import annotations

import posixpath
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

from etherws import __version__
from etherws.cli import manual

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import messages  # noqa: E402

project = "etherws"
version = release = __version__
# No year: the same checkout makes the same pages.
project_copyright = "the authors of etherws"
exclude_patterns = ["_build"]
# Most blocks are commands with their prompt, or pictures made of characters.
highlight_language = "none"
# Two dashes begin an option, and quotes are typed as they stand.
smartquotes = False
html_theme = "alabaster"
html_theme_options = {
    "description": "Ethernet over WebSocket: one LAN across anything that lets HTTP out",
    # A fixed sidebar does not scroll: half of the pages would be out of reach below it.
    "fixed_sidebar": False,
    # As wide as a screen of 1,280 pixels allows.
    "page_width": "78rem",
    "body_max_width": "none",
    "font_size": "16px",
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "searchbox.html", "navigation.html"]}
html_static_path = ["style"]
html_css_files = ["style.css"]
html_copy_source = False
nitpicky = True

#: Where these pages are written at each build. Git does not know the folder.
COMMANDS = HERE / "commands"


def write_commands(app: Any) -> None:
    """Write a page for each command, from the command itself, and the page of all messages."""
    COMMANDS.mkdir(exist_ok=True)
    for path in COMMANDS.iterdir():
        path.unlink()
    pages = manual.command_pages()
    for name, text in pages.items():
        (COMMANDS / f"{name}.rst").write_text(text, encoding="utf-8")
    (COMMANDS / "messages.rst").write_text(messages.page(), encoding="utf-8")
    names = "".join(f"   {name}\n" for name in pages)
    (COMMANDS / "index.rst").write_text(f"Commands\n========\n\n.. toctree::\n\n{names}", encoding="utf-8")


def link(app: Any, doctree: nodes.document) -> None:
    """Have links to files and the names of pages lead to HTML."""
    here = app.env.docname
    for node in list(doctree.findall(nodes.reference)):
        parts = urlsplit(node.get("refuri", ""))
        if not parts.scheme and parts.path.endswith(".rst"):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(here), parts.path))
            if parts.fragment:
                log.warning("link to a part of a page, which is not checked: %s", parts.geturl(), location=node)
            if path.startswith("../"):
                # A file of the checkout that is no page.
                if not (HERE / path).is_file():
                    log.warning("no such file: %s", path, location=node)
                node.replace_self(node.children)
            else:
                node.replace_self(reference(here, path, node.children, explicit=True))
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        if text.startswith("docs/") and text.endswith(".rst") and not isinstance(literal.parent, nodes.reference):
            path = text.removeprefix("docs/")
            if path.removesuffix(".rst") != here and "*" not in path:
                literal.replace_self(reference(here, path, [nodes.inline("", text)], explicit=False))


def reference(here: str, path: str, children: list[nodes.Node], *, explicit: bool) -> nodes.Node:
    """What Sphinx makes a link to that page of; its text is the page's title, or, if explicit, the children."""
    return addnodes.pending_xref(
        "",
        *(child.deepcopy() for child in children),
        refdomain="std",
        reftype="doc",
        reftarget="/" + path.removesuffix(".rst"),
        refdoc=here,
        refexplicit=explicit,
        refwarn=True,
    )


def setup(app: Any) -> dict[str, bool]:
    """Connect the above."""
    app.connect("builder-inited", write_commands)
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
