"""The Autobahn test suite on both ends of the echo: ``make conformance``.

Its fuzzing client tries our server, then our client its fuzzing server: sections 1 to 7, 9 and 10 (12 and 13 are
compression, which is not offered). The suite runs on Python 2.7 only; where there is none, this says so and is no
failure. It is installed in, and its reports lie in, build/autobahn.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent import socket
from gevent import subprocess as gevent_subprocess

from etherws.errors import ConnectError
from tests.autobahn import echo

FOLDER = Path("build/autobahn").resolve()
WSTEST = FOLDER / "suite/bin/wstest"

#: The last versions that do.
VIRTUALENV, SUITE = "virtualenv<20.22", "autobahntestsuite==25.10.1"

CASES = [f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 9, 10)]

#: Seconds for both sides, and for the fuzzing server to listen.
TIMEOUT, START = 600, 20

COLUMNS = ("OK", "NON-STRICT", "FAILED", "INFORMATIONAL")


def python2() -> str | None:
    """A Python 2.7: the one that PYTHON2 names, on the path, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/2.7.*/bin/python2.7")
    for name in (os.environ.get("PYTHON2"), "python2.7", "pypy", *map(str, pyenv)):
        path = name and shutil.which(name)
        # pyenv has a python2.7 on the path that only says how to choose one.
        if path and not subprocess.run([path, "-c", "import io"], capture_output=True, check=False).returncode:
            return path
    return None


def install(python: str) -> None:
    """Install the suite, unless it is there."""
    if WSTEST.exists():
        return
    print(f"installing {SUITE} for {python} in {FOLDER}")
    tool = FOLDER / "virtualenv"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(tool)],
        [str(tool / "bin/python"), *pip, VIRTUALENV],
        [str(tool / "bin/virtualenv"), "--quiet", "-p", python, str(FOLDER / "suite")],
        [str(FOLDER / "suite/bin/python"), *pip, SUITE],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr}")


@contextmanager
def wstest(mode: str, **spec: Any) -> Iterator[Any]:
    """The suite in one of its modes, for as long as the block lasts."""
    reports = FOLDER / mode
    shutil.rmtree(reports, ignore_errors=True)
    spec.update({"outdir": str(reports), "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {}})
    (FOLDER / f"{mode}.json").write_text(json.dumps(spec))
    with (FOLDER / f"{mode}.log").open("w") as log:
        command = [str(WSTEST), "-m", mode, "-s", str(FOLDER / f"{mode}.json"), "-u", "0"]
        process = gevent_subprocess.Popen(command, stdout=log, stderr=log, cwd=FOLDER)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def server_side() -> str:
    """Our server under the fuzzing client; the mode's name."""
    server = echo.server()
    url = f"ws://127.0.0.1:{server.server_port}"
    with wstest("fuzzingclient", servers=[{"agent": "etherws", "url": url}]) as process:
        process.wait()
    server.stop(timeout=0)
    return "fuzzingclient"


def client_side() -> str:
    """Our client under the fuzzing server; the mode's name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{probe.getsockname()[1]}"
    with wstest("fuzzingserver", url=url), gevent.Timeout(TIMEOUT):
        with gevent.Timeout(START):
            while True:
                try:
                    count = echo.connect(f"{url}/getCaseCount")
                    break
                except ConnectError:
                    gevent.sleep(0.1)
        (message,) = count.recv()
        count.close(1000)
        for case in range(1, int(bytes(message[1:])) + 1):
            echo.echo(echo.connect(f"{url}/runCase?case={case}&agent=etherws"))
        echo.echo(echo.connect(f"{url}/updateReports?agent=etherws"))
    return "fuzzingserver"


def verdicts(mode: str) -> dict[str, str]:
    """Each case's verdict: the worse of two, on what was answered and on how the connection ended."""
    found = {}
    for case, report in json.loads((FOLDER / mode / "index.json").read_text())["etherws"].items():
        both = {report["behavior"], report["behaviorClose"]}
        passed = [each for each in ("NON-STRICT", "INFORMATIONAL", "OK") if each in both]
        found[case] = passed[0] if both == set(passed) else "FAILED"
    return found


def show(side: str, found: dict[str, str]) -> bool:
    """Print counts by section; return whether all passed strictly."""
    counts = Counter((int(case.partition(".")[0]), verdict) for case, verdict in found.items())
    print(f"\n{side:10}" + "".join(f"{column:>15}" for column in COLUMNS))
    for section in sorted({section for section, _ in counts}):
        print(f"section {section:<2}" + "".join(f"{counts[section, column]:15}" for column in COLUMNS))
    print(f"{'all':10}" + "".join(f"{list(found.values()).count(column):15}" for column in COLUMNS))
    wrong = [f"{case}: {verdict}" for case, verdict in found.items() if verdict not in ("OK", "INFORMATIONAL")]
    print("\n".join(wrong))
    return bool(found) and not wrong


def main() -> None:
    """Run both sides."""
    python = python2()
    if python is None:
        print("skipped: the Autobahn test suite needs a Python 2.7, and there is none; name one by PYTHON2")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    install(python)
    with gevent.Timeout(TIMEOUT):
        sides = [("server", verdicts(server_side())), ("client", verdicts(client_side()))]
    passed = [show(side, found) for side, found in sides]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
