"""Names of files, made absolute when they are given; and where a file is read, if this process gets a copy of it.

Files are read again while etherws runs, and in the background it works in the folder /. So each name that a user gives
goes through absolute(): those of options in cli/file_options.py, those of the environment and of an embedding
application in settings.py. Links stay as they are: programs that renew certificates replace links.

A process that has given up root's rights reads root's files as staged copies: cli/process/staged_copies.py makes them,
and each reader asks to_read(). Messages have the name that the user gave.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import MutableMapping

from etherws.errors import SettingsError

#: A name for an open descriptor of this process (proc(5), and bash's process substitution).
_DESCRIPTOR = re.compile(r"(?:/dev|/proc/(?:self|thread-self))/(?:fd/([0-9]+)|(stdin|stdout|stderr))")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}

#: Variables by which OpenSSL is told where the system's certificates are: a file, and folders with ``:`` between.
_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

#: How a name begins that means a credential of systemd, and the variable that names their folder (systemd.exec(5)).
CREDENTIAL, CREDENTIALS_FOLDER = "credential:", "CREDENTIALS_DIRECTORY"

#: Stands for that folder where a unit's options are only looked at, and nothing was passed.
PASSED_LATER = "/run/credentials/?/"

#: Options whose value is the name of a file, a folder or a program, with _ for the dashes. Not those whose value may be
#: something else, and says by its form what it is: --header @FILE, --address unix:FILE, --pinnedpubkey FILE.
FILE_OPTIONS = frozenset(
    {
        *("cacert", "certfile", "client_ca", "control", "htpasswd", "keyfile", "monitor_token_file", "password_file"),
        *("pidfile", "policy", "state_dir", "token_file", "up", "down", "change"),
    }
)

#: The folder with copies of the files; None if the files themselves are read.
_copies: str | None = None


def use_copies(folder: str | None) -> None:
    """Read from now on the copies in this folder, of the files that have one there."""
    global _copies
    _copies = folder


def copy_of(path: str, folder: str) -> str:
    """Where the copy of the file of this absolute name is in the folder. Its own folder is not seen in the name."""
    return os.path.join(folder, f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}-{os.path.basename(path)[-100:]}")


def to_read(path: str) -> str:
    """What to open for the file of this name: its copy, if there is one, even if that is a link that leads nowhere."""
    if _copies and os.path.lexists(copy := copy_of(path, _copies)):
        return copy
    return path


def absolute(option: str, name: str) -> str:
    """The absolute name for a file's name. `option` begins the error. An empty name stays empty. ``credential:NAME`` is
    the file of that credential of systemd's.

    A name for standard input or another descriptor becomes the name of the file that is open there. Raises
    SettingsError if that is no file, since what comes from a pipe cannot be read again; or if the name is relative to a
    folder that exists no longer.
    """
    if not name:
        return name
    if name == "-":
        return _open_file(option, name, 0)
    if name.startswith(CREDENTIAL):
        return _credential(option, name)
    try:
        path = os.path.abspath(name)
    except OSError as exc:
        raise SettingsError(f"{option} {name}: the current folder exists no longer; give the whole path") from exc
    if found := _DESCRIPTOR.fullmatch(path):
        return _open_file(option, name, _STANDARD[found[2]] if found[2] else int(found[1]))
    return path


def is_credential(name: str) -> bool:
    """Whether the name means a credential that systemd passes to its unit: ``credential:NAME``, or where that is looked
    at only."""
    return name.startswith((CREDENTIAL, PASSED_LATER))


def _credential(option: str, name: str) -> str:
    """The file of a credential. Raises SettingsError."""
    word = name.removeprefix(CREDENTIAL)
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,255}", word) or word in (".", ".."):
        raise SettingsError(f"{option} {name!r} names no credential; write {CREDENTIAL}NAME, as in the unit")
    folder = os.environ.get(CREDENTIALS_FOLDER)
    if not folder:
        raise SettingsError(
            f"{option} {name}: systemd passes no credential to this process; write LoadCredential={word}:/FILE into"
            " its unit"
        )
    return os.path.join(folder, word)


def make_variables_absolute(environ: MutableMapping[str, str]) -> None:
    """Make the names of files absolute that libraries read from the environment later."""
    for variable in _VARIABLES:
        if value := environ.get(variable):
            environ[variable] = ":".join(absolute(variable, name) for name in value.split(":"))


def _open_file(option: str, name: str, descriptor: int) -> str:
    """The name of the regular file that is open as this descriptor."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(path)):
            return path
    except OSError:
        pass
    raise SettingsError(f"{option} {name}: etherws reads this file again later; give the name of a regular file")
