"""The closed sets of labels: each word that the code has for a reason is in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import etherws
from etherws.client import members as client_members
from etherws.kernel import rules
from etherws.observe.metric_families import DROPS, ERRORS, REFUSALS, STATES
from etherws.server import members as server_members

PACKAGE = Path(etherws.__file__).parent


def text(node: ast.expr) -> str | None:
    """A text that is written out."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def calls(*folders: str) -> Iterator[ast.Call]:
    """All calls in the modules of these folders."""
    for folder in folders:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def refusals() -> Iterator[str]:
    """By what the server counts refusals, as far as that is written out."""
    for call in calls("server", "workers", "gunicorn"):
        name = ast.unparse(call.func)
        first = text(call.args[0]) if call.args else None
        kind = next((each.value for each in call.keywords if each.arg == "kind"), None)
        if name in ("refusals.add", "refusals.count", "ForeignPage") and first:
            yield first
        elif name == "self._unauthorized" and (second := text(call.args[1])):
            yield second
        elif name == "Refused" and kind is not None:
            yield text(kind) or ""
        elif name == "Refused" and first:
            yield first[4:].lower()


def test_each_reason_of_a_refusal_has_its_name() -> None:
    found = set(refusals()) - {""}
    assert len(found) > 15
    assert found <= REFUSALS
    # Those that are put together.
    assert REFUSALS - found <= {"wrong user or password", "wrong token", "TLS", "TLS certificate"}


def test_each_reason_of_a_drop_has_its_name() -> None:
    found = {
        text(node.slice)
        for path in (PACKAGE / "tunnel").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "self.drops"
    }
    found |= {text(call.args[1]) for call in calls("tunnel") if ast.unparse(call.func) == "self._drop"}
    found |= {rules.BPDU, rules.DHCP_SERVER, rules.ROUTER_ADVERTISEMENT, rules.ADDRESS, rules.IP_SOURCE}
    found |= {rules.ARP_SENDER, rules.NEIGHBOUR, rules.GROUP_RATE, rules.DISGUISED}
    found |= {client_members.QUEUE_LOST, server_members.QUEUE_ENDED}
    assert found - {None} < DROPS
    assert len(found) > 14


def test_states_and_errors_are_those_of_a_client() -> None:
    from etherws.client import link_state

    states = {link_state.CONNECTED, link_state.CONNECTING, link_state.WAITING, link_state.STOPPING}
    assert set(STATES["client"]) == states
    assert set(ERRORS) == {link_state.UNREACHABLE, link_state.REFUSED, link_state.LOST}
