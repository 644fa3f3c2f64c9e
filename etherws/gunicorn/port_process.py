"""``python -m etherws.gunicorn.port_process``: the port process of a gunicorn. A worker starts it.

It belongs to nobody: it has a session of its own, leaves nothing of its caller open but standard error, and ends by
itself (port_service.py). Signals for the whole group are for gunicorn, whose workers it outlives. Read next:
find_port_process.py, which starts it.
"""

import os
import signal
import sys


def leave_caller(kept: int) -> None:
    """Become a process of its own. Called before anything is imported that opens files or starts threads."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    # gunicorn's listening sockets above all: who connects to one that nobody accepts from waits for ever.
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor != kept:
            try:
                os.close(descriptor)
            except OSError:
                # The one of the listing itself.
                continue


def listener(control: int) -> tuple[int, int, int] | None:
    """The listening socket, the user that workers run as, and the PID of who starts them; None if this process is not
    needed."""
    import socket

    with socket.socket(fileno=control) as sock:
        # A worker's sockets do not wait: gevent has made them so.
        sock.setblocking(True)
        data, beside, _, _ = sock.recvmsg(100, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    # After the wait: most are not needed, and this takes time to import.
    from etherws.workers.datagrams import descriptors

    fds = descriptors(beside)
    user, _, master = data.partition(b" ")
    return (fds[0], int(user), int(master)) if fds else None


def main(sock: int, user: int, master: int) -> int:
    """Have ports until nobody needs them; return the exit status. `sock` listens for workers, which run as `user`, and
    which `master` starts."""
    import logging

    from gevent.socket import socket as GeventSocket

    from etherws import garbage
    from etherws.errors import EtherwsError
    from etherws.gunicorn.observed_ports import ObservedPorts
    from etherws.gunicorn.port_service import PortService
    from etherws.log_limit import log_unexpected_errors
    from etherws.server.accepting import allow_descriptors
    from etherws.workers.worker_log import StderrHandler

    text = "[%(asctime)s] [%(process)d] [%(levelname)s] etherws ports: %(message)s"
    logging.getLogger().addHandler(StderrHandler(logging.Formatter(text, "%Y-%m-%d %H:%M:%S %z")))
    log_unexpected_errors()
    allow_descriptors()
    garbage.settle()
    try:
        PortService(GeventSocket(fileno=sock), user, master=master, observe=ObservedPorts).run()
    except EtherwsError as exc:
        logging.getLogger("etherws.workers").error("%s", exc)
        return exc.exit_status
    return 0


if __name__ == "__main__":
    leave_caller(int(sys.argv[1]))
    found = listener(int(sys.argv[1]))
    sys.exit(main(*found) if found else 0)
