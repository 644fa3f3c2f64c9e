"""Who may import what: the pure modules stay pure, and each outside library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import etherws

PACKAGE = Path(etherws.__file__).parent

#: Modules that know bytes, settings and small files only.
PURE = {
    *("errors", "wire", "fq_codel", "websocket", "handshake", "settings", "credentials", "passwd", "policy", "toml"),
    *("challenge", "forwarded", "login", "pace", "reload", "route", "__init__"),
}

OUTSIDE = {"gevent", "geventwebsocket", "pytun", "click", "pyroute2", "socket", "gunicorn", "ssl", "select"}

#: Library: the modules that may import it.
DOORS = {
    "pytun": {"tap"},
    "click": {"admin", "cli", "demo"},
    "pyroute2": {"bridge", "netns", "demo", "nft"},
    "geventwebsocket": {"handler"},
    "gunicorn": {"worker"},
    "subprocess": {"demo"},
    "bcrypt": {"credentials", "passwd"},
    "cryptography": {"certificates"},
    "setproctitle": {"login"},
    "tomllib": {"toml"},
    "tomli": {"toml"},
}


def imports() -> dict[str, set[str]]:
    """The top-level packages that each module imports, anywhere in it."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.glob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        found[path.stem] = names
    return found


def test_pure_modules_import_nothing_from_outside() -> None:
    table = imports()
    assert table.keys() >= PURE
    for name in PURE:
        assert not table[name] & OUTSIDE, name


def test_each_library_has_its_doors() -> None:
    for library, doors in DOORS.items():
        assert {name for name, names in imports().items() if library in names} == doors, library


def test_only_the_cli_exits_or_prints() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit", "quit", "input"), path.name


def test_importing_the_application_opens_patches_and_parses_nothing() -> None:
    code = (
        "import os, sys; before = set(os.listdir('/proc/self/fd'));"
        "import etherws.wsgi, gevent.monkey, gevent._hub_local as local;"
        "assert set(os.listdir('/proc/self/fd')) == before, os.listdir('/proc/self/fd');"
        "assert not gevent.monkey.saved, gevent.monkey.saved;"
        "assert local.get_hub_if_exists() is None"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ETHERWS_SERVER_MTU": "garbage", "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
