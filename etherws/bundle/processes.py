"""Processes of etherws on this machine: arguments, variables and limits; and the secrets that these name.

Whatever is secret in them is learned by the redactor before anything is shown: passwords, tokens, values of headers,
also those in the files that options name. Read next: redaction.py. Source: proc(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from etherws.access import policy
from etherws.access.credential_files import parse_entries, read_lines
from etherws.bundle import config_values
from etherws.bundle.redaction import Redactor
from etherws.errors import EtherwsError
from etherws.small_files import read_file

#: Processes that are looked at, to find ours; and ours that are shown.
LOOKS_MAX, SHOWN_MAX = 20_000, 20

#: Bytes of a file of /proc; and of a file with secrets that is read to learn them.
_SIZE, _SECRET_SIZE = 256 * 1024, 64 * 1024

#: Variables that are shown: ours, and those that say which proxy a client takes.
_OURS, _PROXIES = "ETHERWS_", ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

#: Options whose value is secret, and those whose value is a file with secrets.
_SECRETS = {"--user": "user", "-u": "user", "--header": "header", "-H": "header"}
_SECRET_FILES = ("password_file", "token_file")

#: Files of servers with names of clients.
_NAMES_FILES = ("htpasswd", "token_file")


@dataclass(frozen=True)
class Process:
    """A process: its ID, its arguments, and of its environment what concerns us. `folder` is the one that it works
    in."""

    pid: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str = "/"

    @property
    def options(self) -> dict[str, list[str]]:
        """The values of its options, by their names with underscores, from arguments, environment and configuration."""
        found: dict[str, list[str]] = {}
        for index, word in enumerate(self.arguments):
            name, equals, value = word.partition("=")
            following = self.arguments[index + 1] if index + 1 < len(self.arguments) else ""
            if name.startswith("-"):
                key = _SECRETS.get(name, name.lstrip("-").replace("-", "_"))
                found.setdefault(key, []).append(value if equals else following)
        for name, value in self.environment.items():
            for role in ("SERVER_", "CLIENT_"):
                if name.startswith(_OURS + role):
                    found.setdefault(name.removeprefix(_OURS + role).lower(), []).append(value)
        for name, values in self.configuration(found).items():
            found.setdefault(name, []).extend(values)
        return found

    def configuration(self, options: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """What its configuration says, by the other `options`, one of which names that."""
        paths = [os.path.join(self.folder, value.removeprefix("-")) for value in options.get("config", ())]
        return {name: values for path in paths for name, values in config_values.values(path).items()}


def processes(root: Path = Path("/proc"), own: Mapping[str, str] | None = None) -> list[Process]:
    """Those of etherws that this user may look at; and, with `own`, this process's own environment as one with ID 0."""
    found = [Process(0, (), _concerning(own or {}))] if own is not None else []
    for entry in islice(_entries(root), LOOKS_MAX):
        arguments = _words(root / entry / "cmdline")
        if int(entry) != os.getpid() and _is_ours(arguments):
            pairs = (word.partition("=") for word in _words(root / entry / "environ"))
            environment = _concerning({name: value for name, _, value in pairs})
            found.append(Process(int(entry), arguments, environment, _folder(root / entry / "cwd")))
    return found[: SHOWN_MAX + 1]


def learn(redactor: Redactor, found: Iterable[Process]) -> None:
    """Have the redactor know what is secret in the options of these processes, and in the files that they name."""
    for process in found:
        for name, values in process.options.items():
            for value in values:
                _learn_option(redactor, name, value)
        for name, value in process.environment.items():
            if name.lower() == "no_proxy":
                _learn_hosts(redactor, value)
            elif name.lower() in _PROXIES:
                _learn_proxy(redactor, value)
        for words in (process.arguments, *process.configuration(process.options).values()):
            for word in words:
                _learn_urls(redactor, word)


def shown(process: Process, redactor: Redactor, root: Path = Path("/proc")) -> dict[str, Any]:
    """A process, without secrets, with its limits."""
    return {
        "pid": process.pid or None,
        "arguments": list(_arguments(process.arguments, redactor)),
        "environment": {name: _variable(name, value, redactor) for name, value in sorted(process.environment.items())},
        "configuration": {
            name: [_variable(name.upper(), value, redactor) for value in values]
            for name, values in sorted(process.configuration(process.options).items())
        },
        "limits": _text(root / str(process.pid or "self") / "limits").splitlines(),
        "status": [
            line
            for line in _text(root / str(process.pid or "self") / "status").splitlines()
            if line.startswith(("Vm", "Threads", "Cap", "Seccomp", "NoNewPrivs", "FDSize"))
        ],
    }


def named_files(found: Iterable[Process]) -> list[tuple[str, str]]:
    """The files that the options of these processes name, each with its option."""
    names = ("policy", "htpasswd", "token_file", "password_file", "certfile", "keyfile", "client_ca", "cacert")
    return list(
        dict.fromkeys(
            (name, value)
            for process in found
            for name in names
            for value in process.options.get(name, [])
            if os.path.isabs(value)
        )
    )


def _arguments(arguments: tuple[str, ...], redactor: Redactor) -> Iterator[str]:
    before = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if before in _SECRETS:
            yield _hidden(_SECRETS[before], word, redactor)
        elif name in _SECRETS and equals:
            yield f"{name}={_hidden(_SECRETS[name], value, redactor)}"
        elif word[:2] in ("-u", "-H") and len(word) > 2:
            yield f"{word[:2]}{_hidden(_SECRETS[word[:2]], word[2:], redactor)}"
        else:
            yield redactor.text(word)
        before = word


def _variable(name: str, value: str, redactor: Redactor) -> str:
    kind = name.rpartition("_")[2].lower()
    if name.endswith("_FILE"):
        return redactor.text(value)
    if kind in ("user", "header", "password", "token"):
        return "\n".join(_hidden(kind, line, redactor) for line in value.split("\n"))
    return redactor.text(value)


def _hidden(kind: str, value: str, redactor: Redactor) -> str:
    if kind == "user":
        name, colon, _ = value.partition(":")
        return redactor.name(name) + (":secret" if colon else "")
    if kind == "header" and not value.startswith("@"):
        return f"{value.partition(':')[0]}: {redactor.secret(value.partition(':')[2].strip())}"
    return redactor.text(value) if kind == "header" else redactor.secret(value)


def _learn_option(redactor: Redactor, name: str, value: str) -> None:
    if name in ("password", "token"):
        redactor.secret(value)
    elif name == "user":
        user, _, password = value.partition(":")
        redactor.name(user)
        redactor.secret(password)
    elif name == "header":
        for line in value.split("\n"):
            _learn_header(redactor, line)
    elif name in _SECRET_FILES or name in _NAMES_FILES:
        _learn_file(redactor, value)
    elif name == "policy":
        with contextlib.suppress(EtherwsError):
            for client in policy.load(value).clients:
                redactor.name(client)
    elif name in ("connect_to", "sni", "address", "allow_origin"):
        host = value.partition("://")[2] or value
        redactor.host(host.rpartition(":")[0] if host.count(":") == 1 else host)
    elif name == "proxy":
        _learn_proxy(redactor, value)
    elif name == "noproxy":
        _learn_hosts(redactor, value)


def _learn_header(redactor: Redactor, line: str) -> None:
    if line.startswith("@"):
        for each in _text(Path(line[1:]), _SECRET_SIZE).splitlines():
            if not each.startswith("@"):
                _learn_header(redactor, each)
        return
    value = line.partition(":")[2].strip()
    redactor.secret(value)
    # Behind the name of a scheme, as in "Bearer x".
    redactor.secret(value.rpartition(" ")[2])


def _learn_file(redactor: Redactor, path: str) -> None:
    """A server's file has names and hashes; a client's has the secret itself, in its first line."""
    with contextlib.suppress(EtherwsError):
        for entry in parse_entries(path, read_lines(path)[0], None):
            redactor.name(entry.name)
            redactor.secret(entry.value)
        return
    redactor.secret(_text(Path(path), _SECRET_SIZE).partition("\n")[0].strip())


def _learn_hosts(redactor: Redactor, hosts: str) -> None:
    """The hosts that are reached without a proxy, with commas between them."""
    for host in hosts.split(","):
        redactor.host(host.strip().lstrip("."))


def _learn_proxy(redactor: Redactor, url: str) -> None:
    """As client/proxy_choice.py: a proxy's URL may have no scheme. Nothing but this tells then that it is a URL."""
    _learn_urls(redactor, url if "://" in url else f"http://{url}")


def _learn_urls(redactor: Redactor, text: str) -> None:
    if "://" not in text:
        return
    # As client/uris.py: all before an @ may be a password.
    info = text.partition("://")[2].rpartition("@")[0]
    password = info.partition(":")[2]
    for value in (info, password, unquote(password)):
        redactor.secret(value)
    with contextlib.suppress(ValueError):
        found = urlsplit(text)
        redactor.secret(found.query)
        for pair in found.query.split("&"):
            redactor.secret(pair.partition("=")[2])
        redactor.host(found.hostname or "")
    if user := info.partition(":")[0]:
        redactor.name(unquote(user))


def _is_ours(arguments: tuple[str, ...]) -> bool:
    """Whether this is a server or a client, or a worker, however it was started."""
    words = [os.path.basename(word) for word in arguments[:6]]
    return bool({"server", "client"} & {*words} and "etherws" in words) or any(
        word.startswith("etherws.") for word in arguments[:6]
    )


def _concerning(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OURS) or name.lower() in _PROXIES}


def _folder(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return "/"


def _entries(root: Path) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        yield from (entry.name for entry in entries if entry.name.isdecimal())


def _words(path: Path) -> tuple[str, ...]:
    return tuple(_text(path).rstrip("\0").split("\0"))


def _text(path: Path, size: int = _SIZE) -> str:
    try:
        return read_file(path, size).decode(errors="surrogateescape")
    except OSError:
        return ""
