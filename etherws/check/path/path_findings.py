"""What figures of a path mean: how good they are, and what to do about them.

Pure: numbers in, findings out. measure.py has the numbers. Sources of the limits are beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from etherws.check.findings import Finding, Verdict
from etherws.tunnel.check_frames import Report

#: Bytes: the MTU that the kernel gives a new interface (ETH_DATA_LEN of linux/if_ether.h).
MTU_USUAL = 1500

#: Seconds by which a round trip may grow under load: below the first nobody notices, above the second calls and games
#: suffer (grades A and C of the usual tests of bufferbloat).
GROWTH_GOOD, GROWTH_BAD = 0.03, 0.1

#: Jitter in seconds that a call hears (ITU-T G.114 leaves 150 ms for all of the way; players buffer 30 to 60 ms).
JITTER_BAD = 0.03

#: The part of segments that were sent again from which on a congestion control that takes loss for a full path is slow
#: (docs/performance.rst).
LOSS_BAD = 0.005

#: The part of a limit from which on the limit is the reason for the rate.
NEAR = 0.85

#: Bits per second above which processors are the limit more often than paths are.
FAST = 300e6

#: The part of the time in which this process computed, from which on the processor may be the limit.
PROCESSOR_BUSY = 0.9

#: Seconds of round trip below which a slow start after a pause costs nothing that one could feel.
SHORT = 0.005


@dataclass(frozen=True)
class Load:
    """What one direction carried: `rate` in bits per second, None if too little came; the round trips meanwhile, and by
    how much TCP's own had grown at the end that sent, in seconds; the part of segments sent again; the part of the time
    for which this process computed."""

    rate: float | None
    round_trips: Sequence[float]
    tcp_growth: float
    loss: float
    processor: float = 0.0


def duration(seconds: float) -> str:
    """A time for a reader."""
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def speed(rate: float) -> str:
    """A rate for a reader, from bits per second."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g} bit/s"


def jitter(round_trips: Sequence[float]) -> float:
    """The mean difference between a round trip and the one before, in seconds (as RFC 3550, section 6.4.1)."""
    steps = [abs(one - other) for one, other in zip(round_trips[1:], round_trips, strict=False)]
    return sum(steps) / len(steps) if steps else 0.0


def mtus(theirs: int, ours: int | None) -> Finding:
    """The MTUs of the two interfaces in bytes; `ours` is None if nobody said what this end's is to be."""
    data = {"server_bytes": theirs, "bytes": ours}
    if theirs == (ours or MTU_USUAL):
        return Finding("MTU", f"{theirs} bytes at the server{', and here' if ours else ''}", data=data)
    if ours is None:
        text = f"{theirs} bytes at the server; an interface here gets {MTU_USUAL} unless it is told another one"
        return Finding("MTU", text, Verdict.NOTE, f"give the client --mtu {theirs}, or the server a lower one", data)
    text = f"{ours} bytes here, {theirs} at the server: larger frames can be lost without an error"
    return Finding("MTU", text, Verdict.WARNING, f"give both the lower one: --mtu {min(ours, theirs)}", data)


def sizes(
    way: str, passed: Sequence[int], missing: Sequence[int], segment: int, slowest: float, usual: float
) -> Finding:
    """Which sizes of frames, in bytes, passed whole and which did not come. `way` is "up" or "down". `segment` is TCP's
    largest one in bytes, `slowest` what the slowest took in seconds, `usual` the usual round trip."""
    data = {"way": way, "passed_bytes": list(passed), "missing_bytes": list(missing), "segment_bytes": segment}
    where = "to the server" if way == "up" else "from the server"
    if missing and passed:
        return Finding(
            f"frames {way}",
            f"frames of up to {max(passed)} bytes pass {where}, and one of {min(missing)} bytes does not: a router on"
            " the way drops large packets, and its message about that is dropped too (a path MTU black hole)",
            Verdict.FAILED,
            'let ICMP "fragmentation needed" (IPv6: "packet too big") through; or limit TCP\'s segments at the router:'
            " nft … tcp flags syn tcp option maxseg size set rt mtu; or give the interface towards the Internet a"
            " smaller MTU; or sysctl net.ipv4.tcp_mtu_probing=1 at both ends",
            data,
        )
    if missing:
        return Finding(
            f"frames {way}",
            f"not even a frame of {min(missing)} bytes came back",
            Verdict.FAILED,
            "a proxy on the way lets the opening handshake through, but no WebSocket messages; see"
            " docs/reverse-proxies.rst",
            data,
        )
    if slowest > usual + 1:
        return Finding(
            f"frames {way}",
            f"frames of {min(passed)} to {max(passed)} bytes pass whole {where}, but the largest took"
            f" {duration(slowest)}: packets were lost, or the kernel found out by trying how large they may be",
            Verdict.WARNING,
            'if it comes again: let ICMP "fragmentation needed" through, or limit TCP\'s segments at the router',
            data,
        )
    return Finding(f"frames {way}", f"frames of {min(passed)} to {max(passed)} bytes pass whole {where}", data=data)


def cut_by_size(way: str, size: int, code: int | None, text: str) -> Finding:
    """The connection ended when a frame of `size` bytes was sent; `code` and `text` are of the end."""
    hint = "a proxy or a firewall on the way ends WebSockets with messages of that size; raise its limit of messages"
    data = {"way": way, "cut_at_bytes": size, "close_code": code}
    return Finding(
        f"frames {way}", f"at a frame of {size} bytes the connection ended: {text}", Verdict.FAILED, hint, data
    )


def round_trip(round_trips: Sequence[float]) -> Finding:
    """The round trip while nothing else is sent."""
    if not round_trips:
        return Finding("round trip", "no probe was answered in time", Verdict.FAILED)
    middle, shaken = median(round_trips), jitter(round_trips)
    data = {
        "median_seconds": round(middle, 6),
        "shortest_seconds": round(min(round_trips), 6),
        "longest_seconds": round(max(round_trips), 6),
        "jitter_seconds": round(shaken, 6),
        "probes": len(round_trips),
    }
    found = f"{duration(middle)} (shortest {duration(min(round_trips))}, jitter {duration(shaken)})"
    if shaken > JITTER_BAD:
        hint = "a radio link, or a path that others fill: compare at another hour, or by cable"
        return Finding("round trip", f"{found}: calls will suffer from the jitter", Verdict.WARNING, hint, data)
    return Finding("round trip", found, data=data)


def rate(way: str, load: Load, report: Report) -> Finding:
    """What passed in one direction, "up" or "down"."""
    topic = f"rate {way}"
    limit, policy = (report.limit_up, report.policy_up) if way == "up" else (report.limit_down, report.policy_down)
    data = {
        "way": way,
        "bits_per_second": None if load.rate is None else round(load.rate),
        "limit_bits_per_second": limit,
        "limited_by": None,
        "retransmitted_part": round(load.loss, 5),
    }
    if load.rate is None:
        return Finding(topic, "too little came to tell a rate", Verdict.WARNING, "", data)
    if limit and load.rate >= NEAR * limit:
        if policy:
            data["limited_by"] = "policy"
            hint = f"if that is too little: rate-{way} in the server's policy"
            text = f"{speed(load.rate)}: the server's policy allows this client {speed(limit)}"
            return Finding(topic, text, Verdict.NOTE, hint, data)
        data["limited_by"] = "check"
        return Finding(topic, f"at least {speed(load.rate)}: a check takes no more", data=data)
    if load.processor >= PROCESSOR_BUSY:
        data["limited_by"] = "processor"
        text = f"{speed(load.rate)}: the processor of this machine was busy all the time, and may be the limit"
        return Finding(topic, text, Verdict.NOTE, "see docs/performance.rst", data)
    return Finding(topic, speed(load.rate), data=data)


def delay(way: str, load: Load, idle: float, congestion: str) -> Finding:
    """How the round trip grows while one direction is full. `idle` is the usual one in seconds, `congestion` the
    congestion control of the end that sends."""
    topic = f"delay {way}"
    if not load.round_trips:
        text = "no probe was answered while the path was full"
        return Finding(topic, text, Verdict.WARNING, "", {"way": way, "loaded_median_seconds": None})
    loaded = median(load.round_trips)
    growth = max(0.0, loaded - idle)
    in_path = max(0.0, min(load.tcp_growth, growth))
    data = {
        "way": way,
        "loaded_median_seconds": round(loaded, 6),
        "loaded_longest_seconds": round(max(load.round_trips), 6),
        "jitter_seconds": round(jitter(load.round_trips), 6),
        "growth_seconds": round(growth, 6),
        "growth_in_path_seconds": round(in_path, 6),
        "probes": len(load.round_trips),
    }
    full = "upload" if way == "up" else "download"
    found = f"{duration(loaded)} under a full {full}, {duration(idle)} without"
    if growth <= GROWTH_GOOD:
        return Finding(topic, found, data=data)
    verdict = Verdict.NOTE if growth <= GROWTH_BAD else Verdict.WARNING
    if in_path >= growth / 2:
        hint = (
            f"a queue on the way fills: limit the rate to a little less than the path's (rate-{way} in the server's"
            " policy), or turn on CAKE or FQ-CoDel at the router"
        )
        if congestion != "bbr":
            where = "this machine" if way == "up" else "the server"
            hint += f"; and let {where} use BBR: modprobe tcp_bbr (it uses {congestion or 'an unknown one'} now)"
        return Finding(topic, f"{found}: a queue on the way (bufferbloat)", verdict, hint, data)
    if load.rate is not None and load.rate > FAST:
        hint = "at such a rate the processors at both ends are the limit; see docs/performance.rst"
        return Finding(topic, f"{found}: it waits at the ends, not on the way", Verdict.NOTE, hint, data)
    where = "this machine" if way == "up" else "the server"
    hint = f"{where} may be busy, or sends through a proxy that keeps much in memory (nginx: proxy_buffering off)"
    return Finding(topic, f"{found}: most of it waits at the ends, not on the way", verdict, hint, data)


def tcp(ours: str, our_loss: float, slow_start: bool, report: Report, their_loss: float, idle: float) -> Finding:
    """What both ends' TCP use: the congestion controls, what was sent again, and slow starts after a pause. `idle` is
    the usual round trip in seconds."""
    data = {
        "congestion": ours,
        "server_congestion": report.congestion,
        "retransmitted_part": round(our_loss, 5),
        "server_retransmitted_part": round(their_loss, 5),
        "slow_start_after_idle": slow_start,
        "server_slow_start_after_idle": report.slow_start,
    }
    found = f"{ours or 'unknown'} here, {report.congestion or 'unknown'} at the server"
    ends = (("here", ours, our_loss, slow_start), ("at the server", report.congestion, their_loss, report.slow_start))
    lossy = [(where, loss) for where, name, loss, _ in ends if loss > LOSS_BAD and name != "bbr"]
    if lossy:
        where, loss = max(lossy, key=lambda each: each[1])
        text = f"{found}; {loss:.1%} of what was sent {where} was lost, which slows this congestion control down"
        hint = f"use BBR {where}: modprobe tcp_bbr, and --congestion auto or bbr"
        return Finding("TCP", text, Verdict.WARNING, hint, data)
    # BBR does not begin slowly again (net/ipv4/tcp.h, tcp_slow_start_after_idle_check).
    slow = [where for where, name, _, on in ends if on and name and name != "bbr"]
    if slow and idle > SHORT:
        text = f"{found}; after each pause TCP begins slowly again {' and '.join(slow)}"
        return Finding("TCP", text, Verdict.NOTE, "sysctl net.ipv4.tcp_slow_start_after_idle=0 there", data)
    lost = max(our_loss, their_loss)
    return Finding("TCP", f"{found}; {lost:.2%} sent again" if lost else found, data=data)
