"""The control socket: where its file is, how it is made, and how it is removed.

The file of a process that died is replaced. One on which a process answers, one of another user, and what is no socket
are left alone. Its folder must be one in which nobody else can put such a file. Read next: serve.py, which serves it;
server/listen.py, which has UNIX sockets.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

from etherws.errors import ListenError, SettingsError
from etherws.monitoring import check_socket_path
from etherws.server.listen import UNIX_PREFIX, UnixListener

#: Where the folders of root's processes are.
RUN_FOLDER = "/run/etherws"

#: The name of the file in the folder of its process.
NAME = "control"

#: Permissions of the file: who can open it may have etherws do everything.
MODE = 0o600


def usual_path(role: str, device: str, environ: Mapping[str, str] = os.environ, user: int | None = None) -> str:
    """Where the control socket is if nobody says it; empty if there is no place. `user` is the user's number, this
    process's without it."""
    # Of several, with colons between, the first (systemd.exec(5), RuntimeDirectory=).
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(given):
        return os.path.join(given, NAME)
    folder = os.path.join(RUN_FOLDER, f"{role}-{device}")
    # With --run-as, root has made it for this user.
    if (os.geteuid() if user is None else user) == 0 or _owner(folder) == os.geteuid():
        return os.path.join(folder, NAME)
    home = environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(home, "etherws", f"{role}-{device}", NAME) if os.path.isabs(home) else ""


class ControlSocket:
    """The listening socket, its file, and its folder."""

    def __init__(self, path: str, owner: tuple[int, int] | None = None) -> None:
        """Listen at an absolute path. `owner` is the user and group that this process will run as, if it is root and
        that is another one. Raises ListenError, which says what to try."""
        self.path, self._folder = path, os.path.dirname(path)
        self._owners = {0, os.geteuid(), *(owner or ())[:1]}
        # Root has made the folder there, but for a process before this one, which may have run as another user.
        self._roots = os.geteuid() == 0 and os.path.dirname(self._folder) == RUN_FOLDER and _owner(RUN_FOLDER) == 0
        try:
            check_socket_path("the control socket", path)
            made = self._have_folder()
            self._check()
            self.listener = UnixListener(UNIX_PREFIX + path, mode=MODE)
            if owner:
                os.chown(path, *owner, follow_symlinks=False)
            if self._roots or (owner and made):
                # So that it can remove the file, and make it again after a hand-over.
                os.chown(self._folder, *(owner or (0, 0)), follow_symlinks=False)
        except OSError as exc:
            raise ListenError(f"cannot make {path}: {exc.strerror or exc}; name another file by --control") from exc
        except SettingsError as exc:
            raise ListenError(str(exc)) from exc
        self._ends_with_it = made or self._roots

    def close(self) -> None:
        """Close it, and remove the file if it is ours still, and the folder if it was made for it and is empty."""
        self.listener.remove()
        self.listener.close()
        if self._ends_with_it:
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)

    def _have_folder(self) -> bool:
        """Make the folder, and its own one, if they are not there: whether it was made. Raises OSError."""
        made = False
        for each in (os.path.dirname(self._folder), self._folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each)
                # Whatever the umask is: others may see that it is there.
                os.chmod(each, 0o755)
                made = each == self._folder
        return made

    def _check(self) -> None:
        """Raise ListenError unless only this user and root can put files into the folder, or the file, if there is
        one, is theirs. Whether a process answers there is looked at later. Raises OSError."""
        found = os.lstat(self._folder)
        why = ""
        if not stat.S_ISDIR(found.st_mode):
            why = "is no folder"
        elif found.st_uid not in self._owners and not self._roots:
            why = f"belongs to another user, {found.st_uid}"
        # In a folder with the sticky bit, only a file's owner can replace it (unlink(2)).
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not why and shared and not found.st_mode & stat.S_ISVTX:
            why = "may be written to by other users"
        if why:
            raise ListenError(f"cannot make {self.path}: its folder {why}; name another file by --control")
        user = _owner(self.path)
        if shared and user is not None and user not in self._owners:
            raise ListenError(f"{self.path} belongs to another user, {user}; remove it, or name another by --control")


def _owner(path: str) -> int | None:
    """The user whose file or folder this is; None if there is none, or if it cannot be seen."""
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None
