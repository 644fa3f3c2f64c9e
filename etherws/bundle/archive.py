"""Makes the archive: gathers, replaces what is secret, and writes a .tar.gz that only its owner can read.

It works when nothing runs, and without root: what cannot be had is left out, with the reason. It is bounded in bytes
and in time. Read next: redaction.py, processes.py, machine_facts.py, log_lines.py. docs/bundle.rst lists what is in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from etherws import __version__
from etherws.access import policy
from etherws.bundle import log_lines, machine_facts, processes
from etherws.bundle.redaction import Redactor
from etherws.check.files import file as check_file
from etherws.check.machine import machine
from etherws.errors import EtherwsError, SettingsError, printable

#: Bytes of one member, and of all: a mail takes 10 MB, and text is packed to a tenth.
MEMBER_MAX, TOTAL_MAX = 8 << 20, 48 << 20

#: Seconds for all. What has not begun by then is left out.
TIME_MAX = 60.0

#: Running instances that are asked.
INSTANCES_MAX = 10


class Instance(NamedTuple):
    """A running server or client: its name, and what it says at a path of its control socket, such as /status. That
    raises EtherwsError or OSError."""

    name: str
    get: Callable[[str], Any]


class Member(NamedTuple):
    """A member of the archive: its name, what it is, and its content."""

    name: str
    about: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What a member is made of: a text, or a value for JSON."""

    name: str
    about: str
    content: Any


def check(path: str) -> None:
    """Raise SettingsError if there is a file of this name: before the work of gathering."""
    if os.path.lexists(path):
        raise SettingsError(f"{path} exists already; name a new file by --out")


def write(path: str, members: Sequence[Member], folder: str) -> int:
    """Write the archive to a new file; return its bytes. Raises SettingsError; then there is no file."""
    try:
        # With O_EXCL a link is not followed either.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        check(path)
        raise
    except OSError as exc:
        raise SettingsError(f"cannot write {path}: {exc.strerror}; name a file by --out") from exc
    try:
        with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for member in members:
                info = tarfile.TarInfo(f"{folder}/{member.name}")
                info.size, info.mode, info.mtime = len(member.data), 0o600, int(time.time())
                archive.addfile(info, io.BytesIO(member.data))
        return os.stat(path).st_size
    except OSError as exc:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise SettingsError(f"cannot write {path}: {exc.strerror}") from exc
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def members(
    instances: Sequence[Instance],
    redactor: Redactor,
    *,
    environ: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    notes: Sequence[str] = (),
) -> list[Member]:
    """All members, without secrets; the list of them is the first. `notes` are lines for that list."""
    deadline = clock() + TIME_MAX
    found = processes.processes(own=environ)
    processes.learn(redactor, found)
    redactor.host(socket.gethostname())
    gathered: list[Gathered] = []
    for name, about, gather in _parts(instances, found, redactor):
        if clock() > deadline:
            gathered.append(Gathered(name, about, {"left out": f"{TIME_MAX:.0f} s were over"}))
            continue
        try:
            content = gather()
        except (EtherwsError, OSError, ValueError) as exc:
            content = {"left out": printable(str(exc))}
        # A name that comes late is replaced in what came before, too.
        redactor.learn(content)
        gathered.append(Gathered(name, about, content))
    made, total = [], 0
    for each in gathered:
        data = _encoded(each, redactor)
        total += len(data)
        if total > TOTAL_MAX:
            data = b'{"left out": "the bundle would be too large"}\n'
        made.append(Member(each.name, each.about, data))
    return [Member("contents.txt", "this list", _contents(made, redactor, notes).encode()), *made]


def _parts(
    instances: Sequence[Instance], found: Sequence[processes.Process], redactor: Redactor
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Name, description and maker of each member."""
    for instance in instances[:INSTANCES_MAX]:
        folder = "".join(char if char.isalnum() or char in "-_" else "_" for char in instance.name)[:60]
        yield f"{folder}/status.json", "etherws status", partial(instance.get, "/status")
        yield f"{folder}/events.json", "etherws events", partial(instance.get, "/events?since=0")
    yield "check.json", "etherws check: this machine", lambda: [finding.values() for finding in machine()]
    yield "versions.json", "etherws, Python, kernel, distribution, libraries", machine_facts.versions
    yield (
        "processes.json",
        "options, variables and limits of etherws's processes; secrets are replaced",
        lambda: [processes.shown(process, redactor) for process in found],
    )
    yield "files.json", "etherws check of each file that an option names", lambda: _files(found)
    yield "policy.json", "who may do what, without comments", lambda: _policies(found)
    yield "sysctls.json", "settings of the kernel", machine_facts.sysctls
    yield "links.json", "interfaces, bridges, and how many addresses these have learned", machine_facts.links
    yield "rules.json", "etherws's rules of nf_tables with their counters; forward chains", machine_facts.rules
    yield "log.txt", "the last lines of the log", log_lines.log_lines


def _files(found: Sequence[processes.Process]) -> list[dict[str, Any]]:
    return [
        {"option": name, "path": path, "findings": [each.values() for each in check_file(path)]}
        for name, path in processes.named_files(found)[:50]
        # What a policy says is a member of its own.
        if name != "policy"
    ]


def _policies(found: Sequence[processes.Process]) -> list[dict[str, Any]]:
    made = []
    for name, path in processes.named_files(found):
        if name == "policy":
            loaded = policy.load(path)
            clients = [{"client": client, **_profile(profile)} for client, profile in loaded.clients.items()]
            made.append({"path": path, "default": _profile(loaded.default), "clients": clients})
    return made


def _profile(profile: policy.Profile) -> dict[str, Any]:
    return {
        name: sorted(map(str, value)) if isinstance(value, frozenset) else value
        for name, value in dataclasses.asdict(profile).items()
    }


def _encoded(gathered: Gathered, redactor: Redactor) -> bytes:
    if isinstance(gathered.content, str):
        text = redactor.text(gathered.content)
    else:
        text = json.dumps(redactor.value(gathered.content), indent=1, ensure_ascii=True, default=str) + "\n"
    if redactor.holds_secret(text):
        # It cannot be, but if it is, it does not go out.
        text = '{"left out": "a secret was found in it"}\n'
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= MEMBER_MAX else data[:MEMBER_MAX] + b"\n(the rest was left out)\n"


def _contents(made: Sequence[Member], redactor: Redactor, notes: Sequence[str]) -> str:
    lines = [f"A bundle of etherws {__version__}.", *map(redactor.text, notes), ""]
    lines += [f"{member.name:<40} {len(member.data):>9}  {member.about}" for member in made]
    return "\n".join([*lines, "", *said(redactor), ""])


def said(redactor: Redactor) -> list[str]:
    """What was replaced, in words."""
    counts = redactor.counts
    lines = [f"Secrets that were replaced: {counts['secret']}."]
    if redactor.addresses:
        return [*lines, "Addresses, hosts and clients have their own names (--addresses)."]
    addresses = counts["address"] + counts["mac"]
    return [
        *lines,
        f"Public and Ethernet addresses that were replaced: {addresses}; hosts: {counts['host']}; clients:"
        f" {counts['client']}. The same one has the same new name everywhere. Private addresses stay.",
    ]
