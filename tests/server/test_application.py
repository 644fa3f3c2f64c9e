"""The application as a whole: how long its end may take. What it does with a request is tested by its parts."""

from __future__ import annotations

import pytest

from etherws.kernel.store import Store
from etherws.server.application import HAND_OVER_TIMEOUT, Application
from etherws.server.tunnels import Tunnels
from etherws.settings import ServerSettings


@pytest.mark.parametrize(("lasting", "longest"), [(False, 1.7), (True, HAND_OVER_TIMEOUT)])
def test_a_client_that_does_not_answer_keeps_nobody_waiting_for_the_next_process(
    monkeypatch: pytest.MonkeyPatch, lasting: bool, longest: float
) -> None:
    given = []
    monkeypatch.setattr(Tunnels, "stop", lambda _, timeout, *, handing_over: given.append((timeout, handing_over)))
    Application(ServerSettings(), Store(lasting=lasting)).stop()
    Application(ServerSettings(), Store(lasting=lasting)).stop(0.3)
    assert given == [(longest, lasting), (0.3, lasting)]
