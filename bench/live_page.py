"""The live page in Chromium: pictures for the documents, and how busy it keeps the browser.

``python bench/live_page.py DIRECTORY`` writes page-light.png, page-dark.png and page-phone.png; with --measure it
prints a line for each number of clients. The server is none: tests/lab/lively_server.py makes its clients up.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.chromium import Page, chromium
from tests.lab.hosts import until

ROOT = Path(__file__).resolve().parents[1]

#: The file's name, its width and height in CSS pixels, whether it is dark, the clients, and the client that is chosen.
PICTURES = (
    ("page-light.png", 1240, 900, False, 12, "branch-oslo"),
    ("page-dark.png", 1240, 1000, True, 1000, "hub-west-30"),
    ("page-phone.png", 390, 1000, False, 12, ""),
)

#: Seconds for which a page is used while its long tasks are counted.
USED = 20.0

SHOWN = "document.body?.dataset.connection === 'live' && document.querySelector('#whole .now').textContent.length > 1"
ROWS = "document.querySelectorAll('.grid tbody tr[aria-rowindex]')"

#: A task of more than so many milliseconds keeps a key waiting so that one sees it (W3C, Long Tasks API).
LONG = 50


@contextlib.contextmanager
def serving(clients: int) -> Iterator[str]:
    """A server with ten minutes of history; the page's address."""
    argv = [sys.executable, "-m", "tests.lab.lively_server", "--past", "--sessions", str(clients)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def draw(page: Page, directory: Path) -> None:
    """Write PICTURES."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, width, height, dark, clients, chosen in PICTURES:
        with serving(clients) as address:
            page.size(width, height, dark=dark, still=True)
            page.open(address)
            page.until(SHOWN)
            if chosen:
                page.js(f"[...{ROWS}].find(row => row.querySelector('bdi').textContent === '{chosen}').click()")
                page.until("document.querySelector('#chosen-charts .now').textContent.length > 1")
                page.js("scrollTo(0, 0)")
            page.picture(directory / name)


def measure(page: Page, clients: int) -> str:
    """Use a page with so many clients, and say how it went."""
    with serving(clients) as address:
        page.size(1400, 1000)
        page.open("about:blank")
        began = time.monotonic()
        page.open(address)
        page.until(f"{SHOWN} && document.querySelector('.grid')?.getAttribute('aria-rowcount') === '{clients + 1}'")
        shown = time.monotonic() - began
        page.events.clear()
        page.do(
            "Tracing.start", categories="toplevel,disabled-by-default-devtools.timeline", transferMode="ReportEvents"
        )
        began = time.monotonic()
        while (used := time.monotonic() - began) < USED:
            for column in ("client", "trip", "sent", "state"):
                page.js(f"document.querySelector('.grid th.{column} button').click()")
            page.js("document.querySelector('#search').select()")
            page.type("oslo")
            page.js(f"{ROWS}[0]?.click()")
            page.js("document.querySelector('#search').select()")
            page.key("Delete")
            page.js(f"document.querySelector('#table').scrollTop = {int(used * 1000)}")
            time.sleep(0.5)
        page.do("Tracing.end")
        until(
            lambda: page.js("1") and any(each["method"] == "Tracing.tracingComplete" for each in page.events), "a trace"
        )
        heap = page.js("performance.memory.usedJSHeapSize / 1e6")
    tasks = sorted(durations(page))
    return (
        f"{clients:5} clients: all shown after {shown:.1f} s. In {used:.0f} s of sorting, searching and scrolling: "
        f"busy for {sum(tasks) / used / 10:.0f} % of the time, {sum(each > LONG for each in tasks)} of {len(tasks)} "
        f"tasks over {LONG} ms of processor time, the longest {tasks[-1]:.0f} ms; {heap:.0f} MB of heap"
    )


def durations(page: Page) -> list[float]:
    """The processor time of each task of the page's main thread, in milliseconds: on a busy machine others run within
    a task, too."""
    traced = [
        each for event in page.events if event["method"] == "Tracing.dataCollected" for each in event["params"]["value"]
    ]
    threads = {
        (each["pid"], each["tid"])
        for each in traced
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    tasks: dict[tuple[int, int], list[float]] = {}
    for each in traced:
        if "tdur" in each and each["name"] in ("RunTask", "ThreadControllerImpl::RunTask"):
            tasks.setdefault((each["pid"], each["tid"]), []).append(each["tdur"] / 1000)
    # Renderers that draw nothing have main threads, too.
    return max((tasks.get(thread, []) for thread in threads), key=sum)


def main() -> None:
    """Draw, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", help="where the pictures go")
    parser.add_argument("--measure", action="store_true", help="print how busy the browser is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as page:
        if options.directory:
            draw(page, options.directory)
        for clients in (3, 200, 1000) if options.measure else ():
            print(measure(page, clients), flush=True)


if __name__ == "__main__":
    main()
