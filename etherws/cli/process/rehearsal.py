"""The rehearsal of a new image: a child process reads all that the image would read, and says whether it could go on.

The child runs the same command with the same arguments. It has the bundles of the store, and changes nothing: it opens
no port, makes no interface, and logs nothing. If the new version is broken, that is found here, and not after the
old one has given up its sessions. Read next: handover.py, which asks; process_image.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence

from gevent import subprocess

from etherws import __version__
from etherws.errors import DaemonError, printable
from etherws.kernel import sealed_memory

#: Seconds that the child may take. A start takes one, on a slow machine some.
TIMEOUT = 30.0

#: Bytes of what the child prints that are kept: more than a long traceback.
OUTPUT_MAX = 64 << 10

#: What the child says at its end, with its version: a program that ends with status 0 has not said that it could go on.
ANSWER = "etherws can go on as version"


def rehearse(command: Sequence[str], folder: str, environ: Mapping[str, str], descriptors: Sequence[int]) -> str:
    """Run the command in the folder, and return the version that the next image has. It inherits the descriptors.

    Raises DaemonError with the new image's own words if it could not go on.
    """
    # However much it prints: there is no room for more.
    output = sealed_memory.make("etherws-rehearsal", OUTPUT_MAX)
    try:
        status = _run(command, folder, environ, descriptors, output)
        text = os.pread(output, OUTPUT_MAX, 0).rstrip(b"\0").decode(errors="replace")
    finally:
        os.close(output)
    if status == 0 and (found := re.search(rf"^{ANSWER} (\S+)$", text, re.MULTILINE)):
        return printable(found[1])
    raise DaemonError(f"{command[0]} {_reason(status, text)}")


def answer() -> str:
    """What this process says at the end of a rehearsal."""
    return f"{ANSWER} {__version__}"


def _run(
    command: Sequence[str], folder: str, environ: Mapping[str, str], descriptors: Sequence[int], output: int
) -> int | None:
    """The exit status; None if it took too long. Raises DaemonError if the command cannot be started."""
    try:
        child = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environ),
            pass_fds=tuple(descriptors),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as exc:
        raise DaemonError(f"cannot start {command[0]}: {exc.strerror}") from exc
    try:
        return int(child.wait(TIMEOUT))
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Also what it has started, such as an older version that runs in the background.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _reason(status: int | None, text: str) -> str:
    """What went wrong, with the child's own words: its error, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else "")
    said = f": {printable(words.removeprefix('Error: '))}" if words else ""
    if status is None:
        return f"does not come to an end within {TIMEOUT:g} s{said}"
    if status == 0:
        return f"ends without a word of etherws; is it the right program?{said}"
    if status < 0:
        return f"is ended by signal {-status}{said}"
    return f"ends with status {status}{said}"
