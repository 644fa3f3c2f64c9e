"""A terminal that is drawn again and again: what is written to it, and that it is given back."""

from __future__ import annotations

import io
import os
import shutil
import signal

import pytest

from etherws.cli.operate import screen
from etherws.cli.operate.screen import BEGIN, END, TERMINATED, Screen


class Terminal(io.StringIO):
    """Notes what is written, and how often."""

    writes = 0

    def write(self, text: str) -> int:
        """Note it."""
        self.writes += 1
        return super().write(text)

    def isatty(self) -> bool:
        """It is one."""
        return True


def size(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int) -> None:
    """The terminal has this size from now on."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, lines)))


def test_lines_are_written_at_once_over_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    size(monkeypatch, 80, 3)
    terminal = Terminal()
    with Screen(terminal) as shown:
        shown.draw(["a", "b"])
        assert terminal.writes == 2
        shown.draw(["c"] * 10_000)
    assert terminal.getvalue() == (
        f"{BEGIN}\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J"
        f"\x1b[Hc\x1b[K\r\nc\x1b[K\r\n... 9,998 more lines; etherws status shows them all\x1b[K\x1b[J{END}"
    )


def test_the_terminal_is_given_back_when_it_ends_by_a_signal() -> None:
    terminal = Terminal()

    def drawn() -> None:
        with Screen(terminal):
            os.kill(os.getpid(), signal.SIGTERM)
            # The signal is heard at the latest here.
            signal.sigtimedwait([], 0.1)

    with pytest.raises(SystemExit) as caught:
        drawn()
    assert caught.value.code == TERMINATED
    assert terminal.getvalue() == BEGIN + END
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_columns_are_those_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    size(monkeypatch, 132, 50)
    assert screen.columns(Terminal()) == 132
    assert screen.columns(io.StringIO()) is None
