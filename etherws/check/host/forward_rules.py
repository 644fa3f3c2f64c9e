"""Whether rules for routed packets eat bridged frames: br_netfilter shows these to iptables and nf_tables.

Docker loads br_netfilter, and drops what it does not know in the chain FORWARD: then a bridge with VMs passes ARP, and
no IP. The old iptables and nf_tables are looked at. Read next: check/machine.py; kernel/forward_chains.py.
Source: Linux, Documentation/networking/bridge.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from etherws.check.findings import Finding, Verdict
from etherws.check.host.kernel_values import SYSCTL, number
from etherws.errors import some_of
from etherws.kernel.forward_chains import Chain, chains

#: Settings of br_netfilter: which packets of bridges go through the rules for routed ones, by the families of chains.
_SETTINGS = {
    "bridge-nf-call-iptables": ("ip", "inet"),
    "bridge-nf-call-ip6tables": ("ip6", "inet"),
}

#: The chain where Docker puts its own rules (Docker's documentation, "Packet filtering and firewalls").
_DOCKER = "DOCKER-USER"


def forward_rules(sysctl: Path = SYSCTL, ask: Callable[[], Iterable[Chain]] = chains) -> Iterator[Finding]:
    """What happens to frames between two ports of a bridge."""
    folder = sysctl / "net/bridge"
    on = [name for name in _SETTINGS if number(folder / name)]
    if on:
        yield Finding(
            "br_netfilter",
            "is on: rules for routed packets also see what bridges pass",
            Verdict.NOTE,
            _off(on),
            {"on": on},
        )
    else:
        yield Finding("br_netfilter", "is off: bridges pass frames without iptables", data={"on": []})
    try:
        found = list(ask())
    except OSError as exc:
        words = f"the rules of the chain FORWARD cannot be read: {exc.strerror or exc}"
        yield Finding("forward rules", words, Verdict.SKIPPED, "run this check as root")
        return
    yield from _verdicts(found, on)


def _verdicts(found: list[Chain], on: list[str]) -> Iterator[Finding]:
    seen = {family for name in on for family in _SETTINGS[name]} | {"bridge"}
    dropping = [chain for chain in found if chain.drops and chain.family in seen]
    if not dropping:
        some = sum(chain.family in seen and chain.rules for chain in found)
        words = f"drop nothing that is unknown; {some} chains have rules" if some else "none that bridged frames meet"
        yield Finding("forward rules", words, data={"chains": some})
        return
    for chain in dropping:
        where = f"{'iptables' if chain.legacy else 'nf_tables'}: table {chain.family} {chain.table}, chain {chain.name}"
        what = "frames" if chain.family == "bridge" else "IPv6" if chain.family == "ip6" else "IP"
        if chain.rules:
            words, verdict = f"drops {what} between ports of a bridge unless a rule accepts it", Verdict.WARNING
        else:
            words, verdict = f"drops all {what} between ports of a bridge: it has no rule", Verdict.FAILED
        yield Finding(
            "forward rules",
            f"{where}: {words}",
            verdict,
            _mend(chain, on),
            {"family": chain.family, "table": chain.table, "chain": chain.name, "rules": chain.rules},
        )


def _mend(chain: Chain, on: list[str]) -> str:
    if chain.family == "bridge":
        return f"nft add rule bridge {chain.table} {chain.name} accept, or a rule that is narrower"
    user = (
        ""
        if chain.family == "ip6"
        else f"; with Docker: iptables -I {_DOCKER} -m physdev --physdev-is-bridged -j ACCEPT"
    )
    return _off([name for name in on if chain.family in _SETTINGS[name]]) + user


def _off(names: list[str]) -> str:
    return "sysctl -w " + some_of([f"net.bridge.{name}=0" for name in names], 2).replace(",", "") + " turns that off"
