"""All fuzz targets side by side, for a while: ``python -m tests.fuzz.run [--seconds N] [TARGET ...]``; see `make fuzz`.

A target is a file of this folder. Each has a process of its own with a low priority, which runs its tests again
and again with other inputs (tests/conftest.py, profile "fuzz"), until the time is over or an input was found that
breaks a test. Prints how many inputs each target has tried. hypothesis keeps what it found in .hypothesis/, and
`make test` tries that first.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGETS = {path.stem.removeprefix("test_"): path for path in sorted(Path(__file__).parent.glob("test_*.py"))}

#: Seconds for all targets together, and those that the last run of a target may take beyond.
SECONDS, LATE = 300.0, 60.0

#: Seconds of CPU for one run of a target, which needs less than a minute: an input that is never done with takes more.
CPU_SECONDS = 600

#: The priority (nice(1)): low, but not so low that a busy machine gives nothing.
NICE = 10

#: In the statistics of hypothesis, for each phase of each test.
_COUNTS = re.compile(r"(\d+) passing, (\d+) failing, and \d+ invalid")


class Target:
    """One target: how often it ran, how many inputs it tried, and the report of what it found."""

    def __init__(self, name: str) -> None:
        self.name, self.runs, self.inputs, self.found = name, 0, 0, ""

    def run(self, deadline: float) -> None:
        """Run again and again until the deadline, in seconds of time.monotonic(), or until something is found."""
        while time.monotonic() < deadline and not self.found:
            self._once(deadline)

    def _once(self, deadline: float) -> None:
        # The shell sets the limit: preexec_fn of subprocess is not for threads.
        command = ["sh", "-c", f'ulimit -t {CPU_SECONDS}; exec nice -n {NICE} "$@"', "sh"]
        command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=fuzz"]
        command += ["--hypothesis-show-statistics", str(TARGETS[self.name])]
        pipe, joined = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=joined, text=True) as process:
            try:
                text, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()) + LATE)
            except subprocess.TimeoutExpired:
                # On a busy machine. What this run has tried is not counted.
                process.kill()
                process.communicate()
                return
        self.runs += 1
        self.inputs += sum(int(passing) + int(failing) for passing, failing in _COUNTS.findall(text))
        if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            self.found = f"it still ran after {CPU_SECONDS} seconds of CPU\n{text}"
        elif process.returncode != 0:
            self.found = text.partition("Hypothesis Statistics")[0]


def main() -> int:
    """Run the targets; return 1 if something was found, or if a target did not get to run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description="Run fuzz targets side by side.")
    seconds = f"for all together; default: {SECONDS:.0f}"
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help=seconds)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    targets = [Target(name) for name in options.targets or TARGETS]
    deadline = time.monotonic() + options.seconds
    threads = [threading.Thread(target=target.run, args=(deadline,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target in targets:
        if target.found:
            print(f"=== {target.name}\n{target.found}")
    print(f"{'target':16} {'inputs':>10} {'runs':>6}  found")
    for target in targets:
        result = "an error, see above" if target.found else "nothing"
        if not target.runs:
            result = "not one run was complete; give it more seconds"
        print(f"{target.name:16} {target.inputs:10,} {target.runs:6}  {result}")
    return int(any(target.found or not target.runs for target in targets))


if __name__ == "__main__":
    # The database of what was found is beside the tests, not where this was started.
    os.chdir(ROOT)
    sys.exit(main())
