"""Staged copies: root's copies of files that options name, for an etherws that may not read the files themselves.

They are in a folder of root's that the group of etherws may read. privileged_helper.py makes them while etherws runs
with --run-as, and cli/stage.py for a unit of systemd. The reader finds them by file_names.to_read(). A copy is there
whole or not at all. The user of etherws must not choose what is copied: see _may_choose().
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable

from etherws.file_names import copy_of

#: Bytes of a file that are copied. Each reader has a limit of its own, below this, and refuses a larger file.
SIZE_MAX = 16 << 20

#: Files of a directory that are copied. A system's store has 400, with the links by which OpenSSL finds them.
FILES_MAX = 4000

#: Links that are followed in one name; the kernel follows as many (path_resolution(7)).
LINKS_MAX = 40

#: Where a link leads that stands for a file that is gone.
_NOWHERE = "gone"


class StagedCopies:
    """The copies of some files, in one folder."""

    def __init__(self, folder: str, names: Iterable[str], user: int, group: int) -> None:
        """Make the folder, if it is not there. `user` and `group` are those of the reader. Raises OSError."""
        self._folder, self._names, self._user, self._group = folder, sorted(set(names)), user, group
        #: What was seen of each file when it was copied.
        self._seen: dict[str, object] = {}
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EEXIST, "it is there already, and is not a folder of root's", folder)
        os.chown(folder, -1, group)
        os.chmod(folder, 0o750)

    def update(self) -> list[str]:
        """Copy what has changed. Return what could not be copied, and why: a sentence for each file, once."""
        problems = []
        for name in self._names:
            seen = self._look(name)
            if seen == self._seen.get(name, self):
                continue
            self._seen[name] = seen
            try:
                if isinstance(seen, str):
                    self._remove(copy_of(name, self._folder))
                    problems.append(f"{name} {seen}: etherws reads it itself")
                elif isinstance(seen, int):
                    self._put_link(copy_of(name, self._folder), _NOWHERE if seen == errno.ENOENT else os.devnull)
                    problems.append(f"cannot read {name}: {os.strerror(seen)}")
                elif stat.S_ISDIR(os.stat(name).st_mode):
                    self._copy_directory(name, copy_of(name, self._folder))
                else:
                    self._copy(name, copy_of(name, self._folder))
            except OSError as exc:
                # Again at the next look.
                del self._seen[name]
                problems.append(f"cannot copy {name} for etherws: {exc.strerror}")
        return problems

    def remove_others(self) -> None:
        """Remove the copies of files that are not named any more. Raises OSError."""
        named = {os.path.basename(copy_of(name, self._folder)) for name in self._names}
        for entry in set(os.listdir(self._folder)) - named:
            self._remove(os.path.join(self._folder, entry))

    def remove(self) -> None:
        """Remove the copies and their folder."""
        with contextlib.suppress(OSError):
            for entry in os.listdir(self._folder):
                self._remove(os.path.join(self._folder, entry))
            os.rmdir(self._folder)

    def _look(self, name: str) -> object:
        """What tells this state of the file from others: a text why it is not copied, or the number of an error."""
        try:
            if _may_choose(self._user, self._group, name):
                return "is in a folder that the user of etherws may change"
            found = os.stat(name)
            if stat.S_ISDIR(found.st_mode):
                return [_state(found), *((entry.name, _state(entry.stat())) for entry in _files(name))]
        except OSError as exc:
            return exc.errno
        return _state(found) if stat.S_ISREG(found.st_mode) else errno.EINVAL

    def _copy_directory(self, name: str, copy: str) -> None:
        if not os.path.isdir(copy) or os.path.islink(copy):
            self._remove(copy)
            os.mkdir(copy, 0o700)
            os.chown(copy, -1, self._group)
            os.chmod(copy, 0o750)
        there = set()
        for entry in _files(name):
            # A link may lead elsewhere, as in a system's store.
            if not _may_choose(self._user, self._group, entry.path):
                self._copy(entry.path, os.path.join(copy, entry.name))
                there.add(entry.name)
        for gone in set(os.listdir(copy)) - there:
            os.unlink(os.path.join(copy, gone))

    def _copy(self, name: str, copy: str) -> None:
        """Copy a regular file. Raises OSError."""
        # As in small_files.py: a FIFO that has taken its place must not hold this up.
        source = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            data = bytearray()
            while len(data) <= SIZE_MAX and (more := os.read(source, 1 << 20)):
                data += more
        finally:
            os.close(source)
        self._remove(f"{copy}.new")
        with open(os.open(f"{copy}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), -1, self._group)
            os.fchmod(file.fileno(), 0o640)
        self._replace(f"{copy}.new", copy)

    def _put_link(self, copy: str, target: str) -> None:
        self._remove(f"{copy}.new")
        os.symlink(target, f"{copy}.new")
        self._replace(f"{copy}.new", copy)

    def _replace(self, new: str, copy: str) -> None:
        if os.path.isdir(copy) and not os.path.islink(copy):
            self._remove(copy)
        os.rename(new, copy)

    def _remove(self, copy: str) -> None:
        """Remove a copy, if there is one."""
        try:
            if os.path.isdir(copy) and not os.path.islink(copy):
                for entry in os.listdir(copy):
                    os.unlink(os.path.join(copy, entry))
                os.rmdir(copy)
            else:
                os.unlink(copy)
        except FileNotFoundError:
            pass


def _state(found: os.stat_result) -> object:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _files(directory: str) -> list[os.DirEntry[str]]:
    """The regular files of a directory, by name."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file():
                    found.append(entry)
            if len(found) > FILES_MAX:
                raise OSError(errno.E2BIG, f"it has more than {FILES_MAX} files")
    return sorted(found, key=lambda entry: entry.name)


def _may_choose(user: int, group: int, name: str) -> bool:
    """Whether this user can have another file under the name: by the folders on its way, also those behind links.

    Root copies no such file: it might be a link to one that the user may not read. Raises OSError.
    """
    if not user:
        return False
    path, rest, links = "/", [part for part in name.split("/") if part], 0
    while rest:
        folder = os.lstat(path)
        part = rest.pop(0)
        if part == "..":
            path = os.path.dirname(path)
            continue
        entry = os.lstat(os.path.join(path, part))
        if _may_replace(user, group, folder, entry):
            return True
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(os.path.join(path, part))
            rest = [one for one in target.split("/") if one not in ("", ".")] + rest
            path = "/" if target.startswith("/") else path
        else:
            path = os.path.join(path, part)
    return False


def _may_replace(user: int, group: int, folder: os.stat_result, entry: os.stat_result) -> bool:
    """Whether the user may remove or rename this entry of a folder (unlink(2))."""
    if folder.st_uid == user:
        return True
    writable = folder.st_mode & stat.S_IWOTH or (folder.st_gid == group and folder.st_mode & stat.S_IWGRP)
    return bool(writable) and (entry.st_uid == user or not folder.st_mode & stat.S_ISVTX)
