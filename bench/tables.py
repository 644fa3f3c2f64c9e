"""Measures the tables of docs/performance.rst anew: ``python bench/tables.py NAME``, as root.

Each name of TABLES stands for a script with its options, and has a limit of time below five minutes; all together take
less than 20. It prints the table as reStructuredText, and with a second argument writes the figures there as JSON, for
plots.py. Other options are those of the script: run that itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Peers: for a clean path; between which users choose; with enough rounds in the time for a sign test.
ALL = "ws,wss,ws-v1,wss-v1,openvpn-tcp,openvpn-udp,softether,vtun,tinc,pump,vxlan,bare"
CHOICE = "ws,wss,openvpn-tcp,openvpn-tcp-bbr,openvpn-udp,softether,vtun,tinc,bare"
FEW = "ws,openvpn-tcp-bbr,openvpn-udp,bare"
#: The script and its options, by the name of the table.
TABLES = {
    # Up, down and eight flows; processor time and memory.
    "throughput": f"run.py --tables --scenarios tcp,tcp-r,tcp8 --seconds 1 --rounds 3 --limit 225 --peers {ALL}",
    # Small frames and the idle round trip.
    "small": f"run.py --tables --scenarios rtt,pps --seconds 1 --rounds 3 --limit 125 --peers {ALL}",
    # Eight uploads at 20 Mbit/s, and one over a path of 100 Mbit/s, 40 ms and 1 % loss. A round takes most of this.
    "slow": f"run.py --tables --scenarios slow,lossy --seconds 3 --rounds 1 --limit 210 --peers {CHOICE}",
    # Fetches over a path of 100 Mbit/s and 40 ms, and the first answer after idle time (1k).
    "fetch": f"fetch.py --limit 200 --peers {FEW}",
    # The same with 1 % loss.
    "fetch-lossy": f"fetch.py --losses 1 --sizes 1M,10M --patience 5 --limit 100 --peers {FEW}",
    # A fetch over a shorter and a longer path.
    "fetch-far": f"fetch.py --sizes 1M --rtts 10,150 --limit 75 --peers {FEW}",
    # Uploads and pings from the first second on, on bad paths.
    "bad": "bad_paths.py --seconds 5 --limit 265 --paths lossy,rates,bursts,reorder,policer,short,long,slow",
}


def main(argv: list[str]) -> int:
    """Measure a table; return the exit status of the script."""
    if len(argv) not in (1, 2) or argv[0] not in TABLES:
        print(f"usage: tables.py {'|'.join(TABLES)} [FIGURES.json]", file=sys.stderr)
        return 2
    script, *options = TABLES[argv[0]].split()
    if argv[1:]:
        options += ["--json", argv[1]]
    return subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *options]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
