"""Files that are made together: each is written whole or not at all, and if one cannot be, none is left.

Pure. A file that is there is never changed, unless it is to be replaced: then it comes back if another file fails.
cli/init/ uses this.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from types import TracebackType

from etherws.errors import SettingsError


class NewFiles:
    """Use it in a ``with``: if the block fails, the files that were made in it are removed, and those that it replaced
    are back."""

    def __init__(self) -> None:
        self._made: list[str] = []
        # The path of each file that was replaced, and where the old one is meanwhile.
        self._replaced: dict[str, str] = {}

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for path in self._made if kind else ():
            with contextlib.suppress(OSError):
                os.unlink(path)
        for path, old in self._replaced.items():
            with contextlib.suppress(OSError):
                if kind:
                    os.replace(old, path)
                # Also where a rename does nothing, as both are the same file.
                os.unlink(old)

    def note(self, path: str) -> None:
        """Somebody else makes this file: it is removed as well."""
        self._made.append(path)

    def write(self, path: str, content: bytes, mode: int, *, replace: bool = False) -> None:
        """Make a file with this content and mode; its folder as well, if it is not there. Raises SettingsError, also if
        there is a file of the name, and it is not to be replaced."""
        folder = os.path.dirname(path)
        new = _unused(folder)
        try:
            os.makedirs(folder, exist_ok=True)
            try:
                with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(content)
                    os.fchmod(file.fileno(), mode)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    self._replace(new, path)
                else:
                    self._link(new, path)
                # What is said to be there is there after a loss of power, too.
                _sync(folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(new)
        except OSError as exc:
            denied = isinstance(exc, PermissionError)
            hint = "run it as root, or name another --config-dir" if denied else "see --config-dir"
            raise SettingsError(f"cannot write {path}: {exc.strerror}; {hint}") from exc

    def _link(self, new: str, path: str) -> None:
        try:
            # Unlike a rename, it fails if the name is taken.
            os.link(new, path)
        except FileExistsError:
            hint = "remove it, or give the set-up another NAME"
            raise SettingsError(f"{path} is there already; nothing was changed; {hint}") from None
        self._made.append(path)

    def _replace(self, new: str, path: str) -> None:
        old = _unused(os.path.dirname(path))
        try:
            os.link(path, old, follow_symlinks=False)
        except FileNotFoundError:
            self._made.append(path)
        else:
            self._replaced[path] = old
        os.replace(new, path)


def _unused(folder: str) -> str:
    """A name in this folder that nobody uses."""
    return os.path.join(folder, f".etherws-{secrets.token_hex(8)}")


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
