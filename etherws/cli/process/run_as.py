"""When etherws gives up what it does not need: once its sockets and its interface are open, before the first client.

It keeps CAP_NET_ADMIN: interfaces, bridges, filters and congestion control need it for as long as etherws runs. What
else its start may need (CAP_NET_BIND_SERVICE for a port below 1024, CAP_NET_RAW for packet sockets, root's files) it
has used by then. With --run-as it goes on as another user. Read next: kernel/privileges.py, privileged_helper.py.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

import gevent

from etherws import file_names
from etherws.cli.process import log_writer, privileged_helper
from etherws.cli.process.privileged_helper import PrivilegedHelper, Task
from etherws.cli.user_option import User
from etherws.errors import DaemonError, SettingsError
from etherws.kernel import packet_sockets, privileges, service_manager
from etherws.small_files import cannot_read

log = logging.getLogger(__name__)

#: What etherws needs as long as it runs.
KEPT = (privileges.CAP_NET_ADMIN,)

#: What it needs as well to run programs as another user: --hook-user.
KEPT_FOR_HOOKS = (privileges.CAP_KILL, privileges.CAP_SETGID, privileges.CAP_SETUID)

#: Where the next image of this process, or what a unit starts, finds the folder of staged copies.
VARIABLE = "ETHERWS_COPIES"

#: Modules that are imported only when they are used, here or in libraries. The user might not be able to read them.
LATE_MODULES = (
    *("encodings.idna", "gevent.resolver.thread", "gevent.threadpool"),
    *("OpenSSL.crypto", "cryptography.x509", "cryptography.hazmat.primitives.serialization"),
)

#: The device of TAPs.
TUN = "/dev/net/tun"


class Privileges:
    """Those of this process."""

    def __init__(
        self,
        user: User | None,
        names: Sequence[str],
        *,
        packet_sockets: int,
        pidfile: str | None = None,
        unix_socket: str | None = None,
        hook_user: tuple[str, int, int] | None = None,
    ) -> None:
        """`user` is that of --run-as, `hook_user` that of --hook-user. `names` are the files that are read again while
        etherws runs. `packet_sockets` is how many of them are needed later. The others are files that are removed at
        the end. Raises SettingsError if etherws cannot run programs as `hook_user`."""
        self._user, self._names, self._packet_sockets = user, names, packet_sockets
        self._pidfile, self._unix_socket = pidfile, unix_socket
        own = user.user if user else os.geteuid()
        if hook_user and own and hook_user[1] != own:
            raise SettingsError(
                f"--hook-user {hook_user[0]}: etherws can run programs as another user only while it stays root; leave"
                " out --run-as or --hook-user"
            )
        self._kept = (*KEPT, *(KEPT_FOR_HOOKS if hook_user and hook_user[1] != own else ()))
        self._helper: PrivilegedHelper | None = None

    def give_up(self) -> None:
        """Do it, for all threads. Raises DaemonError if this process may not run as the user, or if a part fails."""
        user = self._user
        if user and user.user == os.geteuid():
            # The image before this one has done it. Or it is root, named as such.
            user = None
        try:
            self._reserve()
            if user:
                self._become(user)
            elif self._helper is None:
                self._helper = privileged_helper.adopt()
            kept = self._drop()
        except OSError as exc:
            what = f"run as {user.name}" if user else "give up privileges"
            hint = "start etherws as root" if exc.errno == errno.EPERM else "see the log before this line"
            raise DaemonError(f"cannot {what}: {exc.strerror}; {hint}") from exc
        if self._user:
            log.info("runs as %s from now on, with %s", self._user.name, privileges.names(kept))
        self._warn()

    def reload(self, read_again: Callable[[], object]) -> None:
        """Read files again by this function, when they are there to be read."""
        service_manager.reloading()
        try:
            if self._helper:
                self._helper.look()
            read_again()
        finally:
            service_manager.notify("READY=1")

    def _reserve(self) -> None:
        """Make packet sockets, as long as that is possible."""
        if privileges.CAP_NET_RAW not in privileges.held():
            return
        with contextlib.suppress(OSError):
            packet_sockets.reserve(self._packet_sockets)

    def _become(self, user: User) -> None:
        """Run as the user; before that, start what remains of root. Raises OSError."""
        for module in LATE_MODULES:
            importlib.import_module(module)
        if self._names or self._pidfile or self._unix_socket:
            if os.geteuid():
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            task = Task(self._names, user.user, user.group, self._pidfile, self._unix_socket)
            self._helper, folder, problems = privileged_helper.start(task)
            for problem in problems:
                log.warning("%s", problem)
            os.environ[VARIABLE] = folder
            file_names.use_copies(folder)
        # While the thread still may.
        log_writer.in_threads(lambda: privileges.limit(self._kept))
        privileges.become(user.user, user.group)

    def _drop(self) -> frozenset[int]:
        """Keep only what is needed, in all threads; return it. Raises OSError."""
        # The pool's threads end, and new ones are made by this thread, with what it has by then.
        gevent.get_hub().threadpool.size = 0
        log_writer.in_threads(lambda: _keep_in_thread(self._kept))
        try:
            kept = privileges.keep_only(self._kept)
        except PermissionError as exc:
            # A unit with more capabilities than those of contrib/, but with their filter of system calls.
            if os.geteuid() == 0:
                raise
            log.warning("capabilities cannot be given up: %s; take them out of the unit", exc.strerror)
            return privileges.held()
        if more := privileges.threads_with_more(kept):
            log.warning(
                "these threads keep more than %s, until they go on: %s", privileges.names(self._kept), ", ".join(more)
            )
        return kept

    def _warn(self) -> None:
        """Say what will not work from now on."""
        for name in self._names:
            if why := cannot_read(name):
                log.warning("%s cannot be read again while etherws runs (%s): %s", name, why, self._hint())
        if self._user and (
            hidden := next(filter(cannot_read, (sys.executable, os.__file__, file_names.__file__)), None)
        ):
            log.warning(
                "%s may not read %s, which is a part of etherws: a restart by a signal will fail, and so will"
                " --workers. Install Python and etherws where every user may read them",
                self._user.name,
                hidden,
            )
        try:
            os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError:
            log.warning("%s may not be opened any more: no further interface can be made; chmod 666 %s", TUN, TUN)
        except OSError:
            pass

    def _hint(self) -> str:
        return "let the user or the group read it" if self._user else "chown root, or --run-as its owner"


def _keep_in_thread(kept: Sequence[int]) -> None:
    """Give up what the main thread gives up. What fails here is seen by threads_with_more()."""
    with contextlib.suppress(OSError):
        privileges.keep_only(kept)
