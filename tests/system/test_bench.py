"""The benchmark: short runs of what it can measure, its emulator of a long path, and what it makes of the figures.

Nothing here judges how fast anything is.
"""

from __future__ import annotations

import argparse
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
from bench.bad_paths import Course, Courses
from bench.bad_paths import as_dict as bad_as_dict
from bench.bad_paths import table as bad_table
from bench.fetch import Case, Fetches, Row, tables
from bench.fetch import as_dict as fetch_as_dict
from bench.hostile import table
from bench.hostile_kinds import KINDS
from bench.lab import Lab
from bench.pairs import Pairs, lower_bound, sign_test
from bench.path import Direction, Line
from bench.report import Results
from bench.scenarios import FIGURES, Figure
from bench.tls_records import DATA, KEY_UPDATE, KEY_UPDATE_REQUESTED
from tests.lab.pki import Certificate

ROOT = Path(__file__).parents[2]

#: A measurement loads the machine, so there is only one at a time.
pytestmark = pytest.mark.xdist_group("bench")


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


@pytest.mark.parametrize(("peers", "scenario"), [("ws", "tcp8"), ("pump,vxlan,bare", "rtt")], ids=["ours", "others"])
def test_tunnels(root: None, tmp_path: Path, peers: str, scenario: str) -> None:
    # Eight flows through each would keep all processors busy for long.
    figures = measure(tmp_path, peers, scenario)
    assert set(figures) == {scenario}


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


def passed(line: Line, begun: float | None, times: list[float]) -> list[bool]:
    """Whether packets of 1,000 bytes get through that enter at these times."""
    direction = Direction(line, seed=1)
    if begun is not None:
        direction.begin(begun)
    return [direction.enter(b"x" * 1000, time) for time in times]


def test_direction_loses_all_in_a_burst() -> None:
    line = Line(delay=0, loss=0, rate=1e9, buffer=1, burst_every=3, burst=0.2)
    times = [10.0, 10.1, 12.9, 13.0, 13.1, 13.19, 13.21, 16.1, 16.3]
    assert passed(line, 10.0, times) == [True, True, True, False, False, False, True, False, True]
    # Before SIGUSR1 there are none.
    assert all(passed(line, None, times))


def test_direction_polices_without_a_buffer() -> None:
    line = Line(delay=0.02, loss=0, rate=1e5, buffer=1, policer=5000)
    # Five at once; then one for each 10 ms.
    times = [1.0] * 7 + [1.005, 1.010, 1.011, 1.020]
    assert passed(line, None, times) == [True] * 5 + [False] * 2 + [False, True, False, True]
    direction = Direction(line, seed=1)
    direction.enter(b"x" * 1000, 1.0)
    assert direction.due() == pytest.approx(1.02)


def test_direction_changes_its_rate_also_for_what_waits() -> None:
    direction = Direction(Line(delay=0.5, loss=0, rate=1e6, buffer=0.05, rates=((1.0, 1e5), (2.0, 1e6))), seed=1)
    direction.begin(10.0)
    direction.advance(10.996)
    for name in b"abcdefgh":
        assert direction.enter(bytes([name]) * 1000, now=10.996)
    # Four have left the line when the rate falls, each of the others takes ten milliseconds instead of one.
    direction.advance(11.001)
    assert [packet[:1] for packet in direction.arrived(11.5005)] == [b"a", b"b", b"c", b"d"]
    assert direction.arrived(11.5095) == []
    assert [packet[:1] for packet in direction.arrived(11.5305)] == [b"e", b"f", b"g"]
    assert direction.due() == pytest.approx(11.54)
    # The buffer has as many bytes as before: 50 packets, which now need half a second.
    assert sum(direction.enter(b"x" * 1000, now=11.9) for _ in range(60)) == 51
    direction.advance(12.0)
    # 41 of them are left at 12.0, and need a tenth of the time.
    assert direction.enter(b"x" * 1000, now=12.0)
    assert direction.arrived(12.542)[-1:] == [b"x" * 1000]
    assert direction.due() is None


def test_direction_lets_some_come_late() -> None:
    direction = Direction(Line(delay=0.02, loss=0, rate=1e9, buffer=1, reorder=0.1, late=0.0055), seed=1)
    sent = [number.to_bytes(2, "big") for number in range(1000)]
    for number, packet in enumerate(sent):
        assert direction.enter(packet, now=number / 1000)
    arrived = direction.arrived(2.0)
    assert sorted(arrived) == sent
    late = [packet for at, packet in enumerate(arrived) if at and packet < max(arrived[:at])]
    assert 50 < len(late) < 150
    # A late one comes behind the five that were sent after it.
    place = arrived.index(late[0])
    assert 1 <= sum(packet > late[0] for packet in arrived[:place]) <= 5
    assert direction.due() is None


def test_options_of_the_emulator(capsys: pytest.CaptureFixture[str]) -> None:
    from bench.path import main

    for wrong in ("--rates=3", "--rates=3:0", "--bursts=3:x", "--bursts=0:200"):
        with pytest.raises(SystemExit) as ended:
            main(["a", "b", wrong])
        assert ended.value.code == 2
        assert wrong.partition("=")[0] in capsys.readouterr().err


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


def test_tables_of_the_documentation(results: Results) -> None:
    lines = results.tables().splitlines()
    assert lines[1].split("  ")[0] == "\\"
    assert re.search(r"^etherws ws +4,000 \(3,000 to 5,000\)$", results.tables(), re.MULTILINE)
    assert re.search(r"^OpenVPN TCP 300$", results.tables(), re.MULTILINE)
    assert lines[0] == lines[2] == lines[5]


def test_every_table_has_a_script_and_its_options_are_known() -> None:
    from bench import bad_paths, fetch, run
    from bench.tables import TABLES, main

    scripts = {"run.py": run, "fetch.py": fetch, "bad_paths.py": bad_paths}
    limits = []
    for line in TABLES.values():
        name, *options = line.split()
        limits.append(scripts[name]._options(options).limit)
    assert max(limits) <= 300
    assert sum(limits) <= 20 * 60
    assert main(["nothing"]) == 2


def test_sign_test() -> None:
    assert sign_test([]) is None
    assert sign_test([0.0]) is None
    assert sign_test([0.1]) == 1
    assert sign_test([0.1] * 5) == pytest.approx(2 / 32)
    assert sign_test([0.1] * 9 + [-2.0]) == pytest.approx(2 * 11 / 1024)
    assert sign_test([0.1, -0.1, 0.0]) == 1


def made_up_fetches() -> Fetches:
    """Two rounds of a fetch: the bare path's patience is over in the second."""
    fetches = Fetches([], argparse.Namespace())
    rows = {name: Row(name) for name in ("ws", "openvpn-udp", "bare")}
    rows["ws"].seconds, rows["ws"].outside = {1: 0.5, 2: 0.6}, "bbr"
    rows["openvpn-udp"].seconds = {1: 0.25, 2: 1.0}
    rows["bare"].seconds = {1: 0.25, 2: math.inf}
    fetches.rows[Case(40, 1, "1M")] = rows
    return fetches


def test_table_of_fetches() -> None:
    text = tables(made_up_fetches(), "cubic", 10)
    row = r"^40 ms, 1 % etherws ws +bbr +cubic +0\.500 \(0\.500 to 0\.600\) +1\.03 +-0\.075 +1\.000 2$"
    assert re.search(row, text, re.MULTILINE)
    assert re.search(r"^40 ms, 1 % no tunnel .* 0\.250 \(0\.250 to > 10\) ", text, re.MULTILINE)
    found = fetch_as_dict(made_up_fetches(), {}, "cubic")["fetches"]
    assert [row["seconds"] for row in found] == [[0.5, 0.6], [0.25, 1.0], [0.25, None]]


def test_table_of_bad_paths() -> None:
    pings = [(at / 20 - 1, 40.0 if at < 20 else 50.0 + at) for at in range(120)]
    course = Course("lossy", "ws", "bbr", [10.0, 20.0], pings, sent=160)
    assert (course.rate(), course.idle(), course.lost()) == (15, 40, 25)
    row = r"^1 % loss etherws ws bbr +cubic +15\.0 +40 ms +120 ms +164 ms +169 ms +25 %$"
    assert re.search(row, bad_table([course], "cubic"), re.MULTILINE)


def test_plots_over_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bench.plots import main

    found = Courses(
        [Course("lossy", peer, "bbr", [10.0, 20.0], [(-0.1, 40.0), (0.1, 90.0)], 2) for peer in ("ws", "x")]
    )
    (tmp_path / "json").write_text(json.dumps(bad_as_dict(found, {}, "cubic")))
    assert main([str(tmp_path / "json"), str(tmp_path)]) == 0
    text = (tmp_path / "over-time.svg").read_text()
    assert "etherws ws" in text
    assert "1 % loss" in text


def test_plots(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bench.plots import GROUPS, draw, main

    assert {figure for figures in GROUPS.values() for figure in figures} <= set(FIGURES)
    files = draw(results.as_dict(), tmp_path / "one" / "plots")
    assert [file.name for file in files] == ["choice.svg", "throughput.svg", "latency.svg"]
    text = files[1].read_text()
    assert "OpenVPN TCP" in text
    # A legend says what the colours mean.
    assert ">others<" in text
    assert "4,000" in text
    assert "<dc:date>" not in text
    # The same from a file, byte for byte.
    (tmp_path / "figures.json").write_text(json.dumps(results.as_dict()))
    assert main([str(tmp_path / "figures.json"), str(tmp_path / "two")]) == 0
    assert (tmp_path / "two" / "throughput.svg").read_text() == text


def test_plots_of_what_grows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bench import many
    from bench.plots import GROWTH, main

    assert {figure for figures in GROWTH.values() for figure in figures} <= set(many.FIGURES)
    figure = {"title": "memory: of one", "unit": "kB", "grows": "clients", "workers": {"1": {"10": 90.0, "100": 95.0}}}
    (tmp_path / "many.json").write_text(json.dumps({"figures": {"memory": figure}}))
    assert main([str(tmp_path / "many.json"), str(tmp_path)]) == 0
    assert "memory:" in (tmp_path / "many-idle.svg").read_text()
    assert not (tmp_path / "many-busy.svg").exists()


def test_a_figure_of_what_users_choose_between_has_no_limits(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bench.plots import draw

    for peer in ("pump", "bare", "ws-v1"):
        results.add(1, peer, {"tcp": 9000.0})
    choice, throughput = (file.read_text() for file in draw(results.as_dict(), tmp_path)[:2])
    assert "C pump" in throughput
    assert "C pump" not in choice
    assert "no tunnel" not in choice
    assert "version 1" not in choice
    assert "etherws ws" in choice


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


def test_fetches_and_bad_paths_are_measured_in_small_numbers_too(root: None, tmp_path: Path) -> None:
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("this checkout has no .venv")
    command = [sys.executable, "bench/fetch.py", "--peers", "bare", "--tree", str(ROOT), "--sizes", "100k"]
    command += ["--rounds", "1", "--rest", "0.1", "--json", str(tmp_path / "fetch")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "fetch").read_text())["fetches"]
    assert [row["peer"] for row in rows] == ["bare", f"ws of {ROOT.name}"]
    # Three round trips at least: the handshake, the first ten segments, and the rest.
    assert all(row["seconds"][0] > 0.12 for row in rows)
    assert rows[1]["outside"] in ("bbr", "cubic")
    command = [sys.executable, "bench/bad_paths.py", "--peers", "bare", "--paths", "policer", "--seconds", "1"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "bad")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (course,) = json.loads((tmp_path / "bad").read_text())["courses"]
    assert 0 < sum(course["rates"]) * 0.1 < 110
    assert course["pings"][0][1] > 39


def test_refused_logins_are_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/logins.py", "--rate", "50", "--seconds", "0.4", "--rounds", "1", "--cost", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["one address"]["attackers"][0]["answers"]["429"] >= 10
    # All but the one who was slowed down before, if that is not over.
    assert found["many"]["attackers"][0]["answers"]["401"] >= 19
    assert found["the tunnel was lost"] == {"times": 0}


#: Hostile input of a stranger and of a tenant; a kind for each other server that one needs; and one of each other sort
#: of sender. The last two take most of a minute each, and all kinds take minutes.
SOME_KINDS = ("slow", "wrong-record")
MORE_SERVERS = ("proxy-garbage", "passwords-10", "tls-hellos", "records-28")
MORE_SENDERS = (
    *("404", "joins", "tls-key-updates-session", "tls-renegotiation"),
    *("empty-pings", "hoarding", "byte-segments", "not-reading"),
)


@pytest.mark.long
@pytest.mark.parametrize(
    "some",
    [SOME_KINDS, *(pytest.param(kinds, marks=pytest.mark.packages) for kinds in (MORE_SERVERS, MORE_SENDERS))],
    ids=["one server", "each server", "each sender"],
)
def test_each_sort_of_hostile_input_is_measured_in_small_numbers_too(
    root: None, tmp_path: Path, some: tuple[str, ...]
) -> None:
    if program := missing("iperf3", "openssl"):
        pytest.skip(f"no program {program} on this machine")
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("this checkout has no .venv")
    kinds = ",".join(some)
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
    assert rows.keys() == set(some)
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


def test_many_clients_are_measured_in_small_numbers_too(root: None) -> None:
    if program := missing("openssl"):
        pytest.skip(f"no program {program} on this machine")
    command = [sys.executable, "bench/many.py", "--clients", "4", "--workers", "1", "--connections", ""]
    done = subprocess.run(
        [*command, "--kinds", "ws1,ws2,wss1,wss2", "--seconds", "0.3", "--idle", "0.1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    figures = {name: figure["workers"]["1"]["4"] for name, figure in json.loads(done.stdout)["figures"].items()}
    # Each kind of client speaks.
    assert figures.pop("reached") == 4
    assert min(figures[name] for name in ("up", "down", "ping idle", "ping")) > 0
    # Of few clients, memory may be less than what the start had needed for a moment, and the processor time of a few
    # broadcasts less than a tick of the kernel's clock.
    assert {"memory", "broadcast"} < figures.keys()
    assert 0 < figures["up jain"] <= 1


def missing(*programs: str) -> str:
    """The first of the programs that is not installed, if one is."""
    return next((program for program in programs if not shutil.which(program)), "")


def test_cuts_are_measured_in_small_numbers_too(root: None) -> None:
    if program := missing("nft", "haproxy"):
        pytest.skip(f"no program {program} on this machine")
    # The test of everything at once has resets.
    kinds = ["address", "server-restarted", "proxy-restarted"]
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


@pytest.mark.packages
def test_starts_are_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/start.py", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["server", "server --config", "client --config"]
    assert all(0 < each["least"] <= each["median"] <= each["most"] for each in found.values())


def test_a_stalled_client_is_measured_in_small_numbers_too(root: None) -> None:
    command = [sys.executable, "bench/stalled.py", "--flood", "2000", "--seconds", "0.3", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stalled sessions"]["stayed"] == 1
    assert found["stalled sessions"]["dropped, queue full"] > 0
    assert found["server's memory, MB"]["peak"] > found["server's memory, MB"]["before"]
    assert found["the honest tunnel was lost"] == 0
