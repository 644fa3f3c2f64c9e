"""What the log says when others have changed where an interface is."""

from __future__ import annotations

import pytest

from etherws.kernel.bridge_warnings import warning
from etherws.kernel.membership import Verdict

CONDONE = "bridge-ports-condone-regex ^ethws[0-9]+$' below 'iface vmbr0' in /etc/network/interfaces"
BACK = "to put it back: ip link set ethws12 up master vmbr0"


@pytest.mark.parametrize(
    ("verdict", "up", "words"),
    [
        (Verdict.RELOADED, False, ["ethws12 was taken out of vmbr0 and set down", "it is put back", CONDONE]),
        (Verdict.RELOADED_AGAIN, False, ["ethws12 is taken out of vmbr0 again and again", CONDONE, BACK]),
        (Verdict.TAKEN_OUT, True, ["somebody has taken ethws12 out of vmbr0; it stays out", BACK]),
        (Verdict.TAKEN_OUT, False, ["it stays out", BACK, CONDONE]),
        (Verdict.MOVED, True, ["somebody has moved ethws12 from vmbr0 to bond0; it stays there", BACK]),
    ],
)
def test_it_names_both_and_how_to_undo_it(verdict: Verdict, up: bool, words: list[str]) -> None:
    text = warning(verdict, "ethws12", "vmbr0", "bond0", up=up)
    assert all(word in text for word in words), text
    assert (CONDONE in text) == (not up)


@pytest.mark.parametrize("verdict", [Verdict.NOTHING, Verdict.JOIN, Verdict.DELETED])
def test_the_rest_is_no_warning(verdict: Verdict) -> None:
    assert warning(verdict, "ethws0", "br0", "", up=True) == ""
