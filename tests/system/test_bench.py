"""The benchmark: short runs of what it can measure, its emulator of a long path, and what it makes of the figures.

Nothing here judges how fast anything is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import ssl
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from bench import tls_records
from bench.hostile import table
from bench.hostile_kinds import KINDS
from bench.lab import Lab
from bench.pairs import Pairs, lower_bound
from bench.path import Direction, Line
from bench.report import Results
from bench.scenarios import FIGURES, Figure
from bench.tls_records import DATA, KEY_UPDATE, KEY_UPDATE_REQUESTED
from tests.lab.pki import Certificate

ROOT = Path(__file__).parents[2]

#: A measurement loads the machine, so there is only one at a time.
pytestmark = pytest.mark.xdist_group("bench")


@pytest.fixture
def root() -> None:
    """Skips what needs named network namespaces."""
    if os.geteuid() != 0:
        pytest.skip("only root can name network namespaces")
    name = f"ewtest-{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True, text=True)
        try:
            # It mounts, which a chroot does not allow.
            subprocess.run(["ip", "-n", name, "link"], check=True, capture_output=True, text=True)
        finally:
            subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True, text=True)
    except OSError as exc:
        pytest.skip(f"no named network namespaces here: {exc}")
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no named network namespaces here, as in a chroot: {exc.stderr.strip()}")


def measure(folder: Path, peers: str, scenarios: str) -> dict[str, dict[str, Any]]:
    """One round of a second; the figures by name, for those peers that this machine has. Nothing may remain of it."""
    (temporary := folder / "tmp").mkdir()
    mark, file = f"BENCH_MARK={uuid.uuid4()}", folder / "figures.json"
    name, _, value = mark.partition("=")
    command = [sys.executable, "bench/run.py", "--rounds", "1", "--seconds", "1", "--json", str(file)]
    bench = subprocess.Popen(
        [*command, "--peers", peers, "--scenarios", scenarios],
        cwd=ROOT,
        env={**os.environ, name: value, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = bench.communicate(timeout=120)
    finally:
        # As Ctrl-C would, so that it cleans up; no-op once it has ended.
        bench.terminate()
        bench.wait(20)
    if "nothing is left to measure" in errors:
        pytest.skip(errors.strip())
    assert bench.returncode == 0, output + errors
    assert f"ewbench-{bench.pid}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    assert not list(temporary.iterdir())
    assert not marked(mark)
    figures: dict[str, dict[str, Any]] = json.loads(file.read_text())["figures"]
    skipped = re.findall(r"^bench: (\S+) skipped", errors, re.MULTILINE)
    for figure in figures.values():
        assert set(figure["peers"]) == set(peers.split(",")) - set(skipped)
        assert all(summary["median"] > 0 for summary in figure["peers"].values())
    return figures


def marked(mark: str) -> list[int]:
    """The processes with this in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            # It has ended.
            continue
    return found


def test_tunnels(root: None, tmp_path: Path) -> None:
    figures = measure(tmp_path, "ws,pump,vxlan,bare", "tcp8")
    assert set(figures) == {"tcp8"}


def test_slow_and_lossy_paths(root: None, tmp_path: Path) -> None:
    figures = measure(tmp_path, "bare", "slow,lossy")
    value = {name: figure["peers"]["bare"]["median"] for name, figure in figures.items()}
    assert set(value) == {"slow-ping", "slow-p95", "slow-rate", "lossy-idle", "lossy-ping", "lossy-rate"}
    # What a path takes away it takes on any machine, however fast or busy.
    assert value["slow-rate"] <= 21
    assert value["lossy-rate"] <= 101
    assert min(value["lossy-idle"], value["lossy-ping"]) >= 39


def test_a_peer_that_ends_is_a_failure(root: None, tmp_path: Path) -> None:
    """It says which one and why, and status 1 tells scripts."""
    (tmp_path / "cc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    command = [sys.executable, "bench/run.py", "--peers", "pump", "--scenarios", "rtt", "--rounds", "1"]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "failed: round 1/1, pump: cc -O2" in done.stdout


@pytest.mark.vm_too
def test_emulated_path(root: None) -> None:
    with Lab() as lab:
        with lab.lossy():
            text = lab.a.run("ping", "-n", "-i", "0.02", "-c", "20", "10.98.0.2", check=False)
            times = [float(time) for time in re.findall(r"time=([\d.]+)", text)]
            assert len(times) >= 10
            assert min(times) >= 39
        # And then the veth pair is back.
        assert lab.a.pings("10.98.0.2")
        assert not lab.a.has("path0")


def test_direction_delays_and_keeps_order() -> None:
    direction = Direction(Line(delay=0.02, loss=0, rate=1e6, buffer=0.05), seed=1)
    assert direction.due() is None
    assert direction.enter(b"a" * 1000, now=5.0)
    assert direction.enter(b"b" * 500, now=5.0)
    # A millisecond on the line for the first, half of one more for the second.
    assert direction.due() == pytest.approx(5.021)
    assert direction.arrived(5.0209) == []
    assert direction.arrived(5.0211) == [b"a" * 1000]
    assert direction.arrived(5.0216) == [b"b" * 500]
    assert direction.due() is None


def test_direction_drops_what_finds_the_buffer_full() -> None:
    direction = Direction(Line(delay=0, loss=0, rate=1e6, buffer=0.05), seed=1)
    entered = [direction.enter(b"x" * 1000, now=1.0) for _ in range(60)]
    # One is on the line and fifty milliseconds of others behind it.
    assert entered == [True] * 51 + [False] * 9
    assert direction.enter(b"x" * 1000, now=1.01)


def test_direction_loses_by_its_seed() -> None:
    def losses(seed: int) -> list[int]:
        direction = Direction(Line(delay=0, loss=0.01, rate=1e9, buffer=1), seed)
        return [number for number in range(10_000) if not direction.enter(b"x", now=0.0)]

    assert 50 < len(losses(1)) < 150
    assert losses(1) == losses(1) != losses(2)


@pytest.fixture
def results() -> Results:
    """Two rounds of made-up figures: the second peer fails in the second round."""
    made_up = Results({"cpu": "none"}, rounds=2, seconds=1)
    made_up.add(1, "ws", {"tcp": 3000.0, "rtt": 0.125})
    made_up.add(1, "openvpn-tcp", {"tcp": 300.0})
    made_up.add(2, "ws", {"tcp": 5000.0, "rtt": 0.25})
    return made_up


def test_report(results: Results) -> None:
    text = results.text()
    assert re.search(r"^ +rtt +tcp$", text, re.MULTILINE)
    assert re.search(r"^ws +0\.188 +4,000$", text, re.MULTILINE)
    assert re.search(r"^openvpn-tcp +300$", text, re.MULTILINE)
    assert re.search(r"^  ws +4,000 +3,000 +5,000 +10\.00$", text, re.MULTILINE)
    ws = results.as_dict()["figures"]["tcp"]["peers"]["ws"]
    assert ws == {"median": 4000.0, "min": 3000.0, "max": 5000.0, "ratio": 10.0, "rounds": [3000.0, 5000.0]}


def test_plots(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bench.plots import GROUPS, draw, main

    assert {figure for figures in GROUPS.values() for figure in figures} <= set(FIGURES)
    files = draw(results.as_dict(), tmp_path / "one" / "plots")
    assert [file.name for file in files] == ["throughput.svg", "latency.svg"]
    text = files[0].read_text()
    assert "openvpn-tcp" in text
    assert "4,000" in text
    assert "<dc:date>" not in text
    # The same from a file, byte for byte.
    (tmp_path / "figures.json").write_text(json.dumps(results.as_dict()))
    assert main([str(tmp_path / "figures.json"), str(tmp_path / "two")]) == 0
    assert (tmp_path / "two" / "throughput.svg").read_text() == text


def test_pairs() -> None:
    pairs = Pairs({"rate": Figure("a rate", "1/s", True), "time": Figure("a time", "s", False)})
    pairs.add(1, "before", {"rate": 100.0, "time": 2.0})
    pairs.add(1, "after", {"rate": 110.0, "time": 1.0})
    # No pair: the second side failed in this round.
    pairs.add(2, "before", {"rate": 1.0, "time": 1.0})
    pairs.add(3, "before", {"rate": 200.0})
    pairs.add(3, "after", {"rate": 180.0})
    assert pairs.ratios("rate") == pytest.approx([1.1, 0.9])
    assert pairs.ratios("time") == [2.0]
    rate = pairs.summary()["rate"]
    assert (rate.before, rate.after, rate.ratio, rate.least) == pytest.approx((150, 145, 1, 0.9))
    assert pairs.summary()["time"].bound is None
    assert re.search(r"^rate +1/s +150 +145 +1\.000 +0\.528 +0\.900 to 1\.100$", pairs.text(), re.MULTILINE)
    assert pairs.text().endswith("bound below 0.97: rate")
    assert pairs.as_dict()["rate"]["pairs"] == [(100, 110), (200, 180)]


def test_lower_bound() -> None:
    assert lower_bound([1.02]) is None
    assert lower_bound([1.02, 1.02, 1.02]) == pytest.approx(1.02)
    # Logarithms of 0.1 and -0.1: a mean of 0, and t(1) = 6.314 times a standard error of 0.1.
    assert lower_bound([math.exp(0.1), math.exp(-0.1)]) == pytest.approx(math.exp(-0.6314))
    many = [math.exp(0.1), math.exp(-0.1)] * 50
    assert lower_bound(many) == pytest.approx(math.exp(-1.697 * 0.1 / math.sqrt(99)))


def test_two_checkouts_are_compared_in_small_numbers_too(root: None, tmp_path: Path) -> None:
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("this checkout has no .venv")
    if program := missing("iperf3", "openssl"):
        pytest.skip(f"no program {program} on this machine")
    command = [
        sys.executable,
        str(ROOT / "bench/compare.py"),
        str(ROOT),
        str(ROOT),
        "--rounds",
        "1",
        "--seconds",
        "0.2",
    ]
    command += [
        "--figures",
        "memory,up,clients",
        "--schemes",
        "ws",
        "--clients",
        "10",
        "--json",
        str(tmp_path / "json"),
    ]
    done = subprocess.run(command, cwd=tmp_path.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "json").read_text())
    memory = {f"ws {end} {kind}" for end in ("server", "client") for kind in ("rss", "pss")}
    assert set(found["figures"]) == {*memory, "ws up", "ws up cpu", "clients connect", "clients server rss"}
    assert all(value > 0 for figure in found["figures"].values() for pair in figure["pairs"] for value in pair)
    assert found["machine"]["congestion control outside"] == "cubic"


def test_a_checkout_that_would_run_other_code_is_refused(root: None, tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    command = [sys.executable, "bench/compare.py", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"pip install -e {tmp_path}" in done.stderr


def test_refused_logins_are_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/logins.py", "--rate", "20", "--seconds", "1", "--rounds", "1", "--cost", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["one address"]["attackers"][0]["answers"]["429"] >= 10
    # All but the one who was slowed down before, if that is not over.
    assert found["many"]["attackers"][0]["answers"]["401"] >= 19
    assert found["the tunnel was lost"] == {"times": 0}


#: A kind of hostile input of each sort of sender. All of them take minutes.
SOME_KINDS = (
    *("slow", "404", "joins", "proxy-garbage", "passwords-10", "tls-key-updates-session", "tls-hellos"),
    *("tls-renegotiation", "empty-pings", "records-28", "hoarding", "byte-segments", "not-reading", "wrong-record"),
)


@pytest.mark.long
def test_each_sort_of_hostile_input_is_measured_in_small_numbers_too(root: None, tmp_path: Path) -> None:
    if program := missing("iperf3", "openssl"):
        pytest.skip(f"no program {program} on this machine")
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("this checkout has no .venv")
    kinds = ",".join(SOME_KINDS)
    command = [sys.executable, "bench/hostile.py", "--connections", "2", "--seconds", "0.2", "--stream", "200"]
    done = subprocess.run(
        [*command, "--kinds", kinds, "--json", str(tmp_path / "json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["kind"]: row for row in json.loads((tmp_path / "json").read_text())["rows"]}
    assert rows.keys() == set(SOME_KINDS)
    for kind, row in rows.items():
        assert re.search(rf"^{kind} +{row['connections']} ", done.stdout, re.MULTILINE)
        attack = row["attack"]
        assert attack["opened"] >= 1, (kind, attack)
        # What begins behind a 101 got one.
        assert attack["refused"] == 0 or row["setup"] == "login", (kind, attack)
        assert row["light"]["median"] > 0, kind
        assert row["rate"]["before"] > 0, kind
        assert ("joins" in row) == KINDS[kind].joins


def test_the_table_of_hostile_inputs_marks_what_misses_the_goal() -> None:
    row: dict[str, Any] = {
        "kind": "text",
        "connections": 64,
        "attack": {"MB/s": 5.25},
        "rate": {"before": 4000.0, "during": 2000.0, "after": 4000.0},
        "kept": 0.5,
        "light": {"median": 1.0, "p99": 60.0, "worst": 70.0, "lost": 3},
        "memory": {"grown": 2.5},
        "joins": {"let in": 2, "tried": 3, "worst": None},
        "lost": 1,
        "good": False,
    }
    good = {**row, "kind": "runts", "good": True, "lost": 0, "light": {**row["light"], "lost": 0}}
    failed = {"kind": "slow", "connections": 1, "failed": "no time"}
    lines = table([row, good, failed]).splitlines()
    assert re.search(r"^text +64 +5\.25 +4,000 +2,000 +4,000 +50 % +1\.00 +60\.00 +70\.00 +2\.5 ", lines[2])
    assert lines[2].endswith("2 of   3        -  <- 3 frames never came, sessions lost: 1")
    assert "<-" not in lines[3]
    assert lines[4].endswith("failed: no time")
    assert lines[-1].startswith("1 of 3 reach the goal")


def test_a_flooded_client_is_measured_in_small_numbers_too(root: None) -> None:
    if program := missing("iperf3", "openssl"):
        pytest.skip(f"no program {program} on this machine")
    kinds = ["empty-pings", "frames-1514", "tls-key-updates"]
    command = [sys.executable, "bench/hostile.py", "--client", ",".join(kinds), "--seconds", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == kinds
    assert all(each["connected"] for each in found.values())


@pytest.mark.parametrize("old", [False, True], ids=["TLS 1.3", "TLS 1.2"])
def test_records_by_hand_are_what_openssl_reads(certificate: Certificate, old: bool) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.cert, certificate.key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = server.wrap_bio(incoming, outgoing, server_side=True)

    class Near:
        """What the client sends is read at once."""

        def sendall(self, data: bytes) -> None:
            incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()

        def recv(self, size: int) -> bytes:
            return outgoing.read(size)

    writer = tls_records.writer(Near(), tls_records.context(old=old))
    assert end.version() == ("TLSv1.2" if old else "TLSv1.3")
    for number in range(3):
        if not old:
            incoming.write(writer.key_update(KEY_UPDATE_REQUESTED if number else KEY_UPDATE))
        incoming.write(writer.record(DATA, b"hello", 0 if old else 100))
        assert end.read(100) == b"hello"


def test_strangers_are_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/broken.py", "--messages", "2000", "--handshakes", "100", "--seconds", "1"]
    done = subprocess.run([*command, "--rate", "1000000"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(report["sessions"] for report in found["attack"]) == 4
    assert sum(report["sessions not served"] for report in found["attack"]) == 0
    assert found["the client's tunnel was lost"] == 0
    assert found["slow connections"] == {"held": 1000}


def test_looking_at_a_server_is_measured_in_small_numbers_too(root: None, tmp_path: Path) -> None:
    if program := missing("curl"):
        pytest.skip(f"no program {program} on this machine")
    command = [sys.executable, "bench/observe.py", "--clients", "3", "--rounds", "1", "--seconds", "0.5"]
    done = subprocess.run(
        [*command, "--asked", "1", "--json", str(tmp_path / "json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "over their bounds" in done.stdout, done.stderr
    found = json.loads((tmp_path / "json").read_text())["3"]
    assert all(size > 0 for times in found["answers"].values() for _, size in times)
    assert min(map(len, found["times"].values())) > 10
    assert {"joins and leaves", "kick", "flood of events", "drain"} < set(found["else"])


def missing(*programs: str) -> str:
    """The first of the programs that is not installed, if one is."""
    return next((program for program in programs if not shutil.which(program)), "")


def test_cuts_are_measured_in_small_numbers_too(root: None) -> None:
    if program := missing("nft", "haproxy"):
        pytest.skip(f"no program {program} on this machine")
    kinds = ["reset", "address", "server-restarted", "proxy-restarted"]
    command = [sys.executable, "bench/cuts.py", "--clients", "2", "--cuts", "2", "--steady", "0.2", "--persistent"]
    done = subprocess.run([*command, "--kinds", ",".join(kinds)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == kinds
    for kind in kinds:
        assert found[kind]["cuts"] == 2
        assert sum(found[kind]["lost and found again"].values()) == 2
        assert not found[kind]["interfaces changed"]
        assert not found[kind]["held more than before"]


def test_everything_at_once_is_measured_in_small_numbers_too(root: None) -> None:
    if program := missing("nft"):
        pytest.skip(f"no program {program} on this machine")
    # This seed has short connections, and both kinds of cuts.
    command = [sys.executable, "bench/soak.py", "--minutes", "0.1", "--every", "2", "--clients", "2", "--seed", "70"]
    done = subprocess.run(
        [*command, "--kinds", "reset,client-killed"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cuts"] == {"reset": 2, "client-killed": 1}
    assert found["TCP connections, all hashes equal"] >= 5
    assert not found["held more than before"]


def test_restarts_of_the_server_are_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/restarts.py", "--restarts", "1", "--steady", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["restarts"] == 1


def test_a_stalled_client_is_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/stalled.py", "--flood", "2000", "--seconds", "0.3", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stalled sessions"]["stayed"] == 1
    assert found["stalled sessions"]["dropped, queue full"] > 0
    assert found["server's memory, MB"]["peak"] > found["server's memory, MB"]["before"]
    assert found["the honest tunnel was lost"] == 0
