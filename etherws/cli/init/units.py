"""Have systemd start a set-up, now and at each boot: the unit etherws-server@NAME or etherws-client@NAME.

If the unit is not installed, it is written, for the command that runs now. Read next: docs/units.rst.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import etherws
from etherws.cli.init.common import ask, tell
from etherws.config.new_files import NewFiles
from etherws.errors import SettingsError, SystemdSlow, printable
from etherws.small_files import changeable_by_all

#: Where systemd finds units (systemd.unit(5)), and where an administrator writes them.
_FOLDERS = (
    *("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system"),
)

#: Where our own units are: installed with the package, or in the checkout.
SOURCES = (Path(sys.prefix) / "share" / "etherws", Path(etherws.__file__).parents[1] / "contrib")

#: The command in the units of contrib/.
_COMMAND = "/usr/local/bin/etherws"

#: Seconds that systemctl may take: a client's start waits for its first attempt.
TIMEOUT = 60.0


def wanted(given: bool, *, asks: bool = True) -> bool:
    """Whether to enable it: `given`, or else the answer to a question, if systemd runs here. Raises SettingsError."""
    if given:
        can_enable()
        return True
    try:
        can_enable()
    except SettingsError:
        return False
    return asks and (ask("Start it now, and at each boot? yes or no", "no") or "").lower() in ("y", "yes")


def can_enable() -> None:
    """Raise SettingsError if systemd does not run here, or this user may not tell it."""
    if not os.path.isdir("/run/systemd/system") or not shutil.which("systemctl"):
        raise SettingsError("--enable needs systemd, which does not run here; leave it out, and start etherws --config")
    if os.geteuid():
        raise SettingsError("--enable needs root; leave it out, or run it as root")


def enable(role: str, name: str, *, restart: bool) -> None:
    """Do it; with `restart` also if it runs already. Raises SettingsError."""
    template, unit = f"etherws-{role}@.service", f"etherws-{role}@{name}.service"
    if not _is_there(template):
        _install(template)
        _systemctl("daemon-reload")
    _systemctl("enable", "--quiet", unit)
    # It is ready when its interface is there, for what the user types next. That may take long: a client may wait for
    # its server, and a server for its address.
    try:
        _systemctl("restart" if restart else "start", unit)
        state = "is started"
    except SystemdSlow:
        state = "still starts"
    tell(f"{unit} {state}, and starts at each boot; its log: journalctl -u {unit}")


def later(role: str, name: str) -> str:
    """What the user types to do it later, in one line: with the unit, if it is not installed. Or why that cannot be."""
    template, start = f"etherws-{role}@.service", f"systemctl enable --now etherws-{role}@{name}"
    source = _source(template)
    if _is_there(template) or source is None:
        return start
    try:
        command = _command()
    except SettingsError as exc:
        return f"not yet: {exc}"
    unit = shlex.quote(str(source))
    if command == _COMMAND:
        return f"cp {unit} {_FOLDERS[0]}/ && {start}"
    return f"sed s,{_COMMAND},{command}, {unit} >{os.path.join(_FOLDERS[0], template)} && {start}"


def reload(role: str, name: str) -> None:
    """Have a unit that runs read its files again, as root must copy them for it. Raises SettingsError."""
    unit = f"etherws-{role}@{name}.service"
    try:
        can_enable()
        _systemctl("is-active", "--quiet", unit)
    except SettingsError:
        # Without the unit, the process reads them itself.
        return
    _systemctl("reload", unit)


def unit_text(template: str, command: str) -> str:
    """The unit's text, for the command of this path. Raises SettingsError."""
    if (source := _source(template)) is None:
        raise SettingsError(f"there is no {template}; copy it from contrib/ to {_FOLDERS[0]}")
    return source.read_text().replace(_COMMAND, command)


def _source(template: str) -> Path | None:
    """The unit's file as etherws brings it; None if there is none."""
    return next((path for folder in SOURCES if (path := folder / template).is_file()), None)


def _is_there(template: str) -> bool:
    return any(os.path.exists(os.path.join(folder, template)) for folder in _FOLDERS)


def _command() -> str:
    """The command that runs now, for a unit. Raises SettingsError if a unit cannot run it, or must not."""
    found = shutil.which(sys.argv[0]) or shutil.which("etherws")
    command = os.path.abspath(found) if found else ""
    if not command or command.endswith(".py"):
        raise SettingsError("there is no command etherws; install it where PATH leads")
    # A link from elsewhere leads to nothing there.
    if any(each.startswith(("/home/", "/root/")) for each in (command, os.path.realpath(command))):
        raise SettingsError(
            f"{printable(command)} is in a home directory, which the unit does not see; install it in /opt or /usr"
        )
    if not re.fullmatch(r"[A-Za-z0-9_/.+@-]+", command):
        # systemd would take a blank for the end of the name, and % and others for something else.
        raise SettingsError(f"{printable(command)} has characters that a unit cannot have; install it elsewhere")
    if open_ := changeable_by_all(command):
        raise SettingsError(
            f"every user of this machine can change {command}, which root would run at each boot; chmod o-w {open_}"
        )
    return command


def _install(template: str) -> None:
    text = unit_text(template, _command())
    with NewFiles() as files:
        files.write(os.path.join(_FOLDERS[0], template), text.encode(), 0o644)
    tell(f"{template} is written to {_FOLDERS[0]}")


def _systemctl(*arguments: str) -> None:
    line = ["systemctl", *arguments]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as exc:
        raise SystemdSlow(f"{' '.join(line)} takes longer than {TIMEOUT:g} s") from exc
    except OSError as exc:
        raise SettingsError(f"{' '.join(line)}: {exc}") from exc
    if done.returncode:
        words = printable(" ".join(done.stderr.split()))
        raise SettingsError(f"{' '.join(line)} failed: {words}; the set-up itself is written")
