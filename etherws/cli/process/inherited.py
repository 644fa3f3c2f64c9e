"""What a process inherits from its caller and must not keep: descriptors, signals, the folder, the umask (daemon(7)).

ssh, cron and scripts start programs with closed standard descriptors, with ignored or blocked signals, and with files
of their own open, such as a locked one. mend() is for every command; the rest is for the process in the background,
which daemon.py runs. The nice value and the resource limits stay as the caller chose them.
"""

from __future__ import annotations

import os
import signal

from etherws.errors import DaemonError

STANDARD = (0, 1, 2)

#: As for a usual program. What etherws makes has permissions of its own; libraries may make files as well.
UMASK = 0o022


def mend(*, again: bool = False) -> None:
    """Undo what would break any command. Call it before anything is opened. `again`: this image of the process comes
    after another one, which has blocked signals until this one has its own actions for them."""
    for descriptor in STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            # It is the lowest free number, so open() takes it. Otherwise a socket or the TAP would, and get what is
            # printed.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # A blocked SIGTERM would not end this process, and with SIGCHLD ignored nobody can wait for a child.
    if not again:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # They would end a start that has no use for them yet.
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def need_proc() -> None:
    """Raise DaemonError if /proc is not mounted, as in a chroot: much of what the kernel says of a process is there."""
    if not os.path.exists("/proc/self/status"):
        raise DaemonError("there is no /proc, which etherws needs; mount it: mount -t proc proc /proc")


def leave_caller(*, again: bool = False) -> None:
    """Keep nothing of the caller's but the standard descriptors, which the start still needs. `again`: the image of the
    process before this one did it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    os.umask(UMASK)
    for name in () if again else os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            # Python opens descriptors that no program inherits (PEP 446). So those that can be are the caller's.
            if descriptor not in STANDARD and os.get_inheritable(descriptor):
                os.close(descriptor)
        except OSError:
            # The one of the listing itself, which is closed by now.
            continue


def close_standard_descriptors() -> None:
    """Make /dev/null of the standard descriptors."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in STANDARD:
        os.dup2(null, descriptor)
    os.close(null)
