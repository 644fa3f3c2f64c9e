"""``etherws check`` without anything to check: look at this machine.

Nothing is changed, but for a TAP that is there for a moment (check/host/rights.py). No part needs root: what cannot be
looked at is said to be skipped. Each part yields findings; none ends the others by an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from etherws.check.findings import Finding, Verdict
from etherws.check.host import (
    bridges,
    forward_rules,
    kernel_features,
    machine_clock,
    managers,
    own_links,
    rights,
    surroundings,
)
from etherws.check.host.kernel_values import line
from etherws.errors import DeviceError, printable
from etherws.kernel import link_facts
from etherws.kernel.link_facts import LinkFacts

Part = Callable[[], Iterator[Finding]]


def machine() -> Iterator[Finding]:
    """Look at this machine, part by part."""
    for topic, part in (
        ("TAP", rights.tap),
        ("rights", rights.capabilities),
        ("open files", rights.open_files),
        ("BBR", kernel_features.congestion),
        ("slow start", kernel_features.slow_start),
        ("nf_tables", kernel_features.filters),
        ("nf_tables", kernel_features.bridge_family),
        ("interfaces", _links),
        ("forward rules", forward_rules.forward_rules),
        ("conntrack", kernel_features.conntrack),
        ("ip_forward", kernel_features.forwarding),
        ("managers", managers.managers),
        ("clock", machine_clock.clock),
        ("surroundings", surroundings.surroundings),
    ):
        yield from looked_at(topic, part)


def looked_at(topic: str, part: Part) -> Iterator[Finding]:
    """The findings of a part; one that says why, if it fails."""
    try:
        yield from part()
    except (DeviceError, OSError, ValueError) as exc:
        yield Finding(topic, printable(f"cannot be looked at: {exc}"), Verdict.SKIPPED)


def _links() -> Iterator[Finding]:
    links = link_facts.links()
    for topic, part in (
        ("interfaces", own_links.own_links),
        ("interfaces", own_links.same_addresses),
        ("bridges", bridges.bridges),
        ("bridges", own_links.claims),
        ("loops", _loops),
        ("default route", own_links.outgoing),
    ):
        yield from looked_at(topic, lambda part=part: part(links))  # type: ignore[misc]


def _loops(
    links: Sequence[LinkFacts], log: str = "/dev/kmsg", uptime: Path = Path("/proc/uptime")
) -> Iterator[Finding]:
    if not any(link.bridge for link in links):
        return
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        words = f"the kernel's log, which tells of loops, cannot be read: {exc.strerror}"
        yield Finding("loops", words, Verdict.SKIPPED, "run this check as root")
        return
    try:
        yield from own_links.loops(links, _records(fd), float(line(uptime).split()[0]))
    finally:
        os.close(fd)


def _records(fd: int) -> Iterator[str]:
    """The records of the kernel's log, the oldest first; RECORDS_MAX at most."""
    for _ in range(own_links.RECORDS_MAX):
        try:
            # One record for each read.
            record = os.read(fd, 8192)
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The record was overwritten meanwhile; the next read goes on behind it.
            continue
        if not record:
            return
        yield record.decode(errors="replace")
