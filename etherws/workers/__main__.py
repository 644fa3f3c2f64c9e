"""``python -m etherws.workers`` is a worker of ``etherws server --workers``. Nobody else starts it."""

import os
import signal
import sys

if __name__ == "__main__":
    # Before the rest, which takes time to import: these are for the parent, and would end this process.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)

    from etherws import garbage

    garbage.begin()

    from etherws.workers.worker_process import main

    # Nothing is left to do, and to take the interpreter apart takes time that clients wait.
    os._exit(main(sys.argv[1:]))
