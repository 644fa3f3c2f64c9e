"""The files of the live page: what is sent for each path, and the headers that keep the page to itself.

The page is plain HTML, CSS and ES modules in the folder beside this module, sent as they lie there. Who may have them
is application.py's business. Read next: stream.py, which feeds the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files

#: By the end of a file's name.
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

#: The page's own files may do all it needs, and nothing else may do anything (Content Security Policy Level 3). A
#: stranger's words cannot become markup, either: the page makes text nodes only, which Trusted Types enforce.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

#: Beside the type, for each file. Browsers ask each time, so that the page and the server are of one version.
HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),
)

#: Paths of files that are not below /page/. "login" is what a visitor without a cookie gets; it needs no other file.
NAMES = {"/": "page.html", "login": "login.html", "/favicon.ico": "icon.svg"}

Asset = tuple[str, bytes, list[tuple[str, str]]]


def _read() -> Iterator[tuple[str, Asset]]:
    names = {name: path for path, name in NAMES.items()}
    for file in (files("etherws.observe") / "page").iterdir():
        content = file.read_bytes()
        tag = ("ETag", f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        path = names.get(file.name, f"/page/{file.name}")
        asset = TYPES[file.name.rpartition(".")[2]], content, [*HEADERS, tag]
        yield path, asset
        if file.name == "icon.svg":
            yield f"/page/{file.name}", asset


#: All of them, read at the start: a process that has given up its rights, or whose package was replaced meanwhile,
#: still sends the page that fits it.
_ASSETS = dict(_read())


def asset(path: str) -> Asset | None:
    """The content type, the content and the other headers of a request's path, or of "login"; None if there is no such
    file."""
    return _ASSETS.get(path)
