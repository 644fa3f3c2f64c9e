"""Network namespaces without names: a descriptor holds each, and the rest of the machine does not see them.

For the demo and the tests; no part of a tunnel. Needs no root (a user namespace of its own is enough) and no ``ip``.
Read next: cli/demo.py, which builds a picture of them.
Sources: unshare(2), setns(2), network_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from etherws.kernel.pyroute2_parts import IPRoute

#: include/uapi/linux/sched.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000

#: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN (include/uapi/linux/capability.h).
CAPABILITIES = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 21

#: Kernel settings (the last two are Debian's and Ubuntu's): name, value that forbids user namespaces, value that allows
#: them.
SETTINGS = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)

#: The signals that end a process from the terminal or by hand.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# os.unshare() and os.setns() come only with Python 3.12.
_libc = ctypes.CDLL(None, use_errno=True)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Namespace:
    """A new network namespace. It has a loopback interface, which is down, and no other."""

    def __init__(self) -> None:
        """Raises PermissionError without CAP_SYS_ADMIN; see enter_user_namespace()."""
        own = _current()
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            self._descriptor = _current()
            _check(_libc.setns(own, CLONE_NEWNET), "setns")
        finally:
            os.close(own)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, as netlink takes it to move an interface."""
        return self._descriptor

    def enter(self) -> None:
        """Move this thread into the namespace. It stays there."""
        _check(_libc.setns(self._descriptor, CLONE_NEWNET), "setns")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the namespace and back. Sockets opened inside stay in it."""
        own = _current()
        try:
            self.enter()
            yield
        finally:
            _check(_libc.setns(own, CLONE_NEWNET), "setns")
            os.close(own)

    @contextlib.contextmanager
    def netlink(self) -> Iterator[IPRoute]:
        """A netlink socket of the namespace. This thread is inside the namespace until the end of the block."""
        # pyroute2's event loop would turn an interrupt into another error.
        with _signals_blocked(), self.inside(), IPRoute() as route:
            yield route

    def configure(self, name: str, address: str = "") -> None:
        """Bring an interface up, and give it an address such as 10.0.0.1/24."""
        with self.netlink() as route:
            index = route.link_lookup(ifname=name)[0]
            route.link("set", index=index, state="up")
            if address:
                host, _, length = address.partition("/")
                route.addr("add", index=index, address=host, prefixlen=int(length))

    def cable(self, name: str, far: Namespace, far_name: str) -> None:
        """Connect the namespace to `far` by a veth pair, whose ends are down."""
        with self.netlink() as route:
            route.link("add", ifname=name, kind="veth", peer={"ifname": far_name, "net_ns_fd": far.fileno()})

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call `function` in a child process inside; return its result, or raise what it raised.

        Both must be picklable. Ctrl-C and the other ENDING signals end the child. Raises ChildProcessError if it died.
        """
        reading, writing = os.pipe()

        def call() -> _T:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            self.enter()
            return function(*args, **kwargs)

        # Python loses an interrupt in the hooks that it runs around a fork; and in the child, an interrupt must not
        # raise KeyboardInterrupt in the parent's code.
        child = 0
        try:
            with os.fdopen(reading, "rb") as report:
                with _signals_blocked():
                    child = os.fork()
                    if child == 0:
                        _answer(writing, call)
                    os.close(writing)
                # An interrupt that came meanwhile is raised here: the child ends also then.
                answer = report.read()
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
        if not answer:
            raise ChildProcessError(f"the child in the namespace died, status {os.waitstatus_to_exitcode(status)}")
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def processes(self) -> list[int]:
        """The process IDs of the processes inside that this user may look at, without zombies."""
        own = os.fstat(self._descriptor)
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            # It has ended meanwhile, or belongs to another user.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{name}/ns/net"), own):
                    found.append(int(name))
        return found

    def end(self, timeout: float) -> bool:
        """End the processes inside: by SIGTERM, and after `timeout` seconds by SIGKILL. Return whether SIGTERM was
        enough."""
        deadline = time.monotonic() + timeout
        number = signal.SIGTERM
        # Repeat it: a process may have started another one meanwhile.
        while processes := self.processes():
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            for process in processes:
                with contextlib.suppress(ProcessLookupError), open(os.pidfd_open(process), "rb", 0) as handle:
                    signal.pidfd_send_signal(handle.fileno(), number)
                    # Readable once it has ended (pidfd_open(2)).
                    select.select([handle], [], [], max(1.0, deadline - time.monotonic()))
        return number == signal.SIGTERM

    def close(self) -> None:
        """Close the descriptor. The kernel removes the namespace once no process or socket is in it."""
        os.close(self._descriptor)


def privileged() -> bool:
    """Whether this process may make network namespaces and configure them (proc(5), CapEff)."""
    found = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and int(found[1], 16) & CAPABILITIES == CAPABILITIES


def enter_user_namespace() -> None:
    """Make this process root in a user namespace of its own. Raises OSError, which says what to try, if it may not.

    The process must have one thread only. It gets a new network namespace too: it has no right to return to its old one
    after it has been in another.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare")
        # Without CAP_SETGID outside, the group can be mapped only after setgroups(2) is denied (user_namespaces(7)).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as exc:
        text = "in a container, allow it the system call unshare"
        for name, forbidding, good in SETTINGS:
            path = Path("/proc/sys", name.replace(".", "/"))
            if path.exists() and path.read_text().strip() == forbidding:
                text = f"set {name} to {good}"
        raise OSError(exc.errno, f"no user namespace for this user: {exc.strerror}; run as root, or {text}") from exc


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the ENDING signals; they are delivered after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(pipe: int, function: Callable[[], object]) -> NoReturn:
    """All that the child does: write the function's result or exception into `pipe`, and exit without running any
    clean-up of the parent's."""
    try:
        try:
            answer = pickle.dumps((function(), None))
        except BaseException as exc:
            answer = pickle.dumps((None, exc))
        with os.fdopen(pipe, "wb") as report:
            report.write(answer)
    finally:
        os._exit(0)


def _current() -> int:
    """A new descriptor of the namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int, call: str) -> None:
    """Raise OSError if a call of libc has failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
