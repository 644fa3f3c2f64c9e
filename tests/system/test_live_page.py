"""The live page in a real browser, fed by a server that is none (tests/lab/lively_server.py)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.chromium import AXE, Page, chromium, violations
from tests.lab.hosts import Process
from tests.lab.lively_server import HOSTILE

LIVE = "document.body?.dataset.connection === 'live' && document.querySelector('#verdict').dataset.level !== 'unknown'"
ROWS = "[...document.querySelectorAll('.grid tbody tr[aria-rowindex]')]"
NAMES = f"{ROWS}.map(row => row.querySelector('.client bdi').textContent)"

#: As a phone, in CSS pixels.
PHONE = 390, 844


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[str, Process]]:
    """A server in a process of its own, and the page's address."""
    process = Process([sys.executable, "-m", "tests.lab.lively_server", *options], cwd=Path(__file__).parents[2])
    try:
        process.says("/\n")
        yield process.output.split("\n")[0], process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all."""
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    """Its tab, as new."""
    browser.open("about:blank")
    browser.until("location.href === 'about:blank'")
    browser.events.clear()
    browser.size(1400, 1000)
    return browser


def fits(page: Page) -> None:
    """Nothing is wider than the window."""
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "there is something to scroll sideways"


def test_hostile_names_are_text_and_a_session_is_ended_by_keyboard(page: Page) -> None:
    with serving("--sessions", "5", "--hostile") as (address, _):
        page.open(address)
        page.until(LIVE)
        names = page.js(NAMES)
        assert HOSTILE[0] in names
        assert "abc\ufffdgnp.exe\ufffd" in names
        assert "\ufffd[31mred\ufffd[0m\ufffd\ufffdSet-Cookie: a=b" in names
        assert max(map(len, names)) == 200
        assert page.js("document.querySelectorAll('img, script:not([src]), style').length") == 0
        assert "Up. 5 clients: " in page.text()
        warnings = page.js("[...document.querySelectorAll('#warnings li')].map(line => line.textContent)")
        assert (warnings[0], len(warnings), max(map(len, warnings))) == (HOSTILE[0], len(HOSTILE), 1000)
        assert "The LAN needs a look:" in page.js("document.querySelector('#verdict').textContent")
        # From the top: the first stop is the way to the clients.
        page.key("Tab")
        assert page.js("document.activeElement.className") == "skip"
        page.js("document.querySelector('.grid').focus()")
        page.key("ArrowDown")
        page.key("ArrowDown")
        page.key("Enter", "\r")
        chosen = page.js("document.querySelector('#chosen-title').textContent")
        assert chosen == page.js(NAMES)[1]
        assert page.js("document.querySelector('[aria-selected=true] .client bdi').textContent") == chosen
        page.until("document.querySelector('#chosen-charts svg').getAttribute('aria-label').includes('highest')")
        page.key("Delete")
        assert page.js("document.querySelector('#kick').open")
        assert chosen in page.js("document.querySelector('#kick-text').textContent")
        assert page.js("document.activeElement.textContent") == "Cancel"
        page.key("Escape")
        assert not page.js("document.querySelector('#kick').open")
        page.key("Delete")
        page.js("document.querySelector('#kick-seconds').value = '600'")
        page.key("Tab")
        assert page.js("document.activeElement.textContent") == "End session"
        page.key("Enter", "\r")
        page.until("document.querySelector('#say').textContent.includes('was ended')")
        page.until(f"{ROWS}.length === 4")
        page.until("document.querySelector('#chosen-state').textContent === 'This session has ended.'")
        page.size(*PHONE)
        fits(page)
        page.js("document.querySelector('#drain-open').click()")
        page.js("document.querySelector('#drain .confirm').click()")
        page.until("document.querySelector('#verdict').textContent.startsWith('Draining: nobody can join. 4 clients')")
        assert page.js("document.querySelector('#drain-open').disabled")
        assert page.complaints() == []


def test_the_page_says_that_the_server_is_away_and_lives_again(page: Page) -> None:
    with serving("--sessions", "3") as (address, process):
        page.open(address)
        page.until(LIVE)
        assert page.complaints() == []
        process.stop()
        page.until("document.querySelector('#notice').innerText.startsWith('No connection to etherws')")
        assert "No connection to etherws" in page.js("document.querySelector('#say').textContent")
    port = address.split(":")[2].strip("/")
    with serving("--sessions", "3", "--port", port, "--refuse"):
        page.until("document.querySelector('#notice').innerText.includes('Type “etherws page”')")
    with serving("--sessions", "4", "--port", port):
        page.until(f"{LIVE} && {ROWS}.length === 4")
        assert page.js("document.querySelector('#notice').hidden")
        assert "etherws was started again" in page.js("document.querySelector('#events').textContent")
        assert page.js("document.querySelector('#say').textContent") == "The connection is back."
    complaints = [each for each in page.complaints() if "Failed to load resource" not in each]
    assert complaints == []


def test_a_thousand_clients_are_few_rows(page: Page) -> None:
    with serving("--sessions", "1000") as (address, _):
        page.open(address)
        page.until(f"{LIVE} && document.querySelector('.grid').getAttribute('aria-rowcount') === '1001'")
        assert "Up. 1,000 clients: 959 fine, 37 slow, 4 in trouble." in page.text()
        # The work for a reading does not grow with the clients: a bounded number of rows and of changes.
        most = page.js("document.querySelectorAll('.grid tr').length")
        assert most < 50
        page.js(
            "window.changes = 0; new MutationObserver(all => changes += all.length).observe("
            "document.querySelector('.grid'), {subtree: true, childList: true, characterData: true})"
        )
        page.until("changes > 0")
        assert page.js("changes") < 20 * most
        page.js("document.querySelector('#table').scrollTop = 15000")
        page.until(f"{ROWS}.some(row => row.getAttribute('aria-rowindex') === '501')")
        assert page.js("document.querySelectorAll('.grid tr').length") < 60
        # Search, by name, MAC address and state.
        page.js("document.querySelector('#search').focus()")
        page.type("oslo-16")
        page.until(f"JSON.stringify({NAMES}) === '[\"branch-oslo-16\"]'")
        page.until("document.querySelector('#say').textContent === '1 client fits the search.'")
        for words, count in (("02:00:01:00:00:a1", 1), ("silent", 4), ("nobody", 0)):
            page.js("document.querySelector('#search').value = ''; document.querySelector('#search').focus()")
            page.type(words)
            page.until(f"document.querySelector('.grid').getAttribute('aria-rowcount') === '{count + 1}'")
        assert "No client fits this search." in page.text()
        page.js("{const s = document.querySelector('#search'); s.value = ''; s.dispatchEvent(new Event('input'))}")
        # Sort, by name and by a number.
        head = "document.querySelector('.grid th.%s button').click()"
        page.js(head % "client")
        assert page.js(NAMES)[:3] == ["branch-lyon", "branch-lyon-1", "branch-lyon-2"]
        page.js(head % "client")
        assert page.js(NAMES)[0] == "warehouse-99"
        page.js(head % "trip")
        assert page.js("document.querySelector('th.trip').getAttribute('aria-sort')") == "descending"
        assert page.js(f"{ROWS}[0].querySelector('.trip').textContent") == "610 ms"
        # The others are a dot each.
        dots = "[...document.querySelectorAll('.dots')].map(path => path.getAttribute('d').split('M').length - 1)"
        assert page.js(dots) == [959, 32, 0]
        assert "bridge br0 with 1,000 clients" in page.js(
            "document.querySelector('.topology').getAttribute('aria-label')"
        )
        page.size(*PHONE)
        fits(page)
        assert page.complaints() == []


def test_a_client_shows_its_one_link(page: Page) -> None:
    with serving("--client", "waiting") as (address, _):
        page.size(*PHONE)
        page.open(address)
        page.until(LIVE)
        assert "Connection refused. Next attempt in 12 s." in page.text()
        page.until("document.querySelector('.topology').textContent.includes('proxy.example.net:3128')")
        assert "End session" not in page.text()
        assert "Drain" not in page.text()
        fits(page)
        assert page.complaints() == []


@pytest.mark.packages
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "options", ["--sessions 3", "--sessions 200 --hostile", "--sessions 1000", "--client connected"]
)
def test_axe_finds_nothing(page: Page, options: str, dark: bool) -> None:
    """https://github.com/dequelabs/axe-core, all rules of WCAG 2.2 AA and best practices."""
    if not AXE.is_file():
        pytest.skip("no axe-core here; make acceptance installs it")
    with serving(*options.split(), "--past") as (address, _):
        for width, height in ((1400, 1000), PHONE):
            page.size(width, height, dark=dark, still=True)
            page.open(address)
            page.until(f"{LIVE} && document.querySelector('#whole .now').textContent.length > 1")
            assert violations(page) == []
            if "--client" not in options:
                page.js(f"{ROWS}[1].click()")
                assert violations(page) == []
                page.js("document.querySelector('#kick-open').click()")
                assert violations(page) == []
        assert page.complaints() == []
