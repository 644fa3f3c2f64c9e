"""Who may import whom: the rooms of the house, what each may see, and the one door of each outside library.

docs/architecture.rst draws the same table. Modules go by their path: names repeat from room to room.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import etherws

PACKAGE = Path(etherws.__file__).parent
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

#: A room, which is a folder or a module beside the folders: what else of etherws its modules may import. A folder's
#: modules may import each other. Everything may import `errors`, and the version from `__init__`.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "__init__": set(),
    "addresses": set(),
    "close_codes": set(),
    "log_limit": set(),
    "counters": set(),
    "events": set(),
    "file_names": set(),
    "small_files": {"file_names"},
    "reloadable": {"file_names"},
    "values": set(),
    "garbage": set(),
    "walks": {"garbage"},
    "kernel": {"log_limit", "small_files", "values", "events", "walks"},
    "monitoring": {"addresses", "file_names"},
    "tap_settings": {"file_names", "monitoring"},
    "hooks": {"kernel/privileges", "tap_settings", "small_files"},
    "settings": {"addresses", "file_names", "values", "tap_settings"},
    "features": {"settings"},
    "access": {"settings", "tap_settings", "log_limit", "small_files", "file_names"},
    "config": {"access/toml_lines", "access/policy_values", "settings", "small_files", "file_names"},
    "tunnel": {
        *("kernel/interfaces", "kernel/bridges", "kernel/mac", "kernel/state_folder", "kernel/store"),
        *("kernel/bring_up", "kernel/links", "kernel/state_file", "kernel/sealed_memory", "settings", "close_codes"),
        *("kernel/inet", "kernel/duplicates"),
        *("log_limit", "counters", "walks"),
    },
    "client": {
        *("tunnel", "access/certificates", "kernel/network_monitor", "kernel/guard", "kernel/port_filter"),
        *("kernel/port_tables", "kernel/rules", "settings", "addresses", "close_codes", "log_limit", "reloadable"),
        *("kernel/link_claim", "kernel/loop_watch", "kernel/store", "kernel/state_file", "kernel/interfaces"),
        *(
            "kernel/announce",
            "kernel/bridge_tables",
            "kernel/bridge_states",
            "kernel/service_manager",
            "small_files",
            "features",
            "counters",
            "events",
        ),
        *("access/certificate_facts", "access/interception", "hooks"),
    },
    "server": {
        *("tunnel", "kernel", "access", "settings", "addresses", "close_codes", "features", "log_limit", "reloadable"),
        *("file_names", "counters", "events", "walks", "garbage", "tap_settings", "hooks"),
    },
    "observe": {
        *("counters", "events", "values", "log_limit", "small_files", "file_names", "addresses", "settings"),
        *("monitoring", "reloadable", "tunnel/scheduling", "server/accepting", "server/front_door", "server/http"),
        *("server/listen", "server/login_queue", "server/presence", "server/taken_port"),
        *("kernel/store", "kernel/state_file", "walks"),
    },
    "check": {
        *("client", "kernel", "access", "tunnel", "settings", "addresses", "close_codes", "features", "values"),
        *("small_files", "file_names", "counters", "monitoring", "server/taken_port", "hooks"),
    },
    "bundle": {"check", "kernel", "access", "config", "small_files", "file_names"},
    "gunicorn": {"workers", "server", "settings", "log_limit", "counters", "events", "observe", "garbage"},
    "workers": {
        *("server", "tunnel", "kernel", "access", "settings", "addresses", "close_codes", "log_limit", "reloadable"),
        *("file_names", "counters", "events", "features", "walks", "garbage"),
    },
    "wsgi": {"server", "gunicorn", "config", "settings", "garbage"},
    "worker": {"server", "gunicorn", "wsgi", "garbage"},
    "handler": {"server"},
    "cli": {
        *("access", "client", "kernel", "server", "workers", "settings", "log_limit", "small_files", "file_names"),
        *("values", "observe", "check", "bundle", "config", "hooks", "counters", "events", "addresses", "garbage"),
    },
    "__main__": {"cli", "garbage"},
}

#: Modules that know bytes, settings and small files only: no event loop, no device, no socket.
PURE = {
    *("__init__", "errors", "addresses", "close_codes", "features", "small_files", "reloadable", "settings"),
    *(
        "file_names",
        "values",
        "monitoring",
        "tap_settings",
        "counters",
        "events",
        "garbage",
        "check/findings",
        "hooks/facts",
    ),
    *("observe/access", "observe/logins", "observe/status", "observe/subject", "observe/history", "observe/page"),
    *("check/path/said", "access/interception", "check/path/hops", "check/path/own_words", "check/path/answers"),
    *("bundle/address_words", "bundle/redaction", "config/configuration", "config/server_settings"),
    *("config/invitation", "config/new_files", "config/texts", "tunnel/acknowledgements"),
    *(
        "check/files",
        "check/host/bridges",
        "check/host/kernel_values",
        "check/host/managers",
        "check/host/surroundings",
    ),
    *("access/credential_files", "access/passwd", "access/policy", "access/policy_values", "access/toml_lines"),
    *(
        "cli/operate/cells",
        "cli/examples",
        "cli/habits",
        "cli/operate/status_details",
        "cli/operate/status_table",
        "cli/operate/troubles",
        "cli/operate/units",
    ),
    *(
        "client/backoff",
        "client/credentials",
        "client/http_answer",
        "client/http_auth",
        "client/late_refusal",
        "client/offer",
        "client/proxy_choice",
    ),
    *("client/answer_text", "client/network_errors", "client/refusals", "client/uris", "client/failures"),
    *("client/link_state", "client/losses", "client/upgrade", "client/member_plan"),
    *("access/profile_values", "kernel/bridge_members", "kernel/sealed_memory", "server/port_state"),
    *("kernel/bridge_warnings", "kernel/learned", "kernel/link_changes", "kernel/loops", "kernel/membership"),
    *(
        "kernel/netlink",
        "kernel/network_changes",
        "kernel/known_links",
        "kernel/nft_expressions",
        "kernel/rule_changes",
    ),
    *(
        "server/forwarded",
        "server/gate",
        "server/handshake",
        "tunnel/link_status",
        "server/negotiation",
        "server/origins",
        "server/owners",
        "server/proxy_protocol",
        "server/wall_clock",
    ),
    *("workers/balance", "workers/start_message"),
    *(
        "tunnel/fq_codel",
        "tunnel/frames",
        "tunnel/offloads",
        "tunnel/rate_limit",
        "tunnel/udp_super_frames",
        "tunnel/wire",
    ),
    *(
        "tunnel/shared_rates",
        "tunnel/delays",
        "tunnel/history",
        "tunnel/device_names",
        "tunnel/check_frames",
        "tunnel/padding",
        "server/checks",
    ),
    *("check/path/idle_findings", "check/path/path_findings"),
}

OUTSIDE = {"gevent", "geventwebsocket", "pytun", "click", "pyroute2", "socket", "gunicorn", "ssl", "select"}

#: A library: the modules that may import it.
DOORS = {
    "pytun": {"tunnel/tap_device"},
    "click": {
        "cli/admin",
        "cli/bundle",
        "cli/check",
        "cli/check_options",
        "cli/commands",
        "cli/completion",
        "cli/config_check",
        "cli/config_option",
        "cli/control_commands",
        "cli/demo",
        "cli/demo_command",
        "cli/demo_page",
        "cli/file_options",
        "cli/init/client",
        "cli/init/common",
        "cli/init/server",
        "cli/interface_options",
        "cli/login",
        "cli/manual",
        "cli/monitor_options",
        "cli/number_options",
        "cli/offered",
        "cli/operate/operating",
        "cli/options",
        "cli/sections",
        "cli/stage",
        "cli/user_option",
        "cli/operate/watching",
        "cli/way",
    },
    "pyroute2": {"kernel/pyroute2_parts"},
    "geventwebsocket": {"server/http"},
    "gunicorn": {"worker"},
    "subprocess": {"bundle/log_lines", "hooks/program", "cli/demo", "cli/init/units", "workers/child"},
    "bcrypt": {"access/credential_files", "access/passwd"},
    "cryptography": {"access/certificates", "access/certificate_facts", "access/new_certificate"},
    "OpenSSL": {"access/client_certificates"},
    "setproctitle": {"client/credentials"},
    "wcwidth": {"cli/operate/cells"},
    "prometheus_client": {"observe/metrics", "observe/metric_families", "observe/client_metrics"},
    "tomllib": {"access/toml_lines"},
    "tomli": {"access/toml_lines"},
}


#: A house rule (CONTRIBUTING.rst): a longer module is split by task.
LINES_MAX = 300


def room_of(module: str) -> str:
    """The row of the table that a module is in."""
    return module.partition("/")[0]


@cache
def nodes(module: str) -> list[ast.Import | ast.ImportFrom | ast.Call]:
    """What a module imports and calls, anywhere in it."""
    tree = ast.parse(MODULES[module].read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]


@cache
def imported(module: str) -> tuple[set[str], set[str]]:
    """What a module imports, anywhere in it: modules of etherws by path, and other libraries by name."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in nodes(module):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            # `from etherws.kernel import interfaces` imports a module, `from etherws.errors import X` one above.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] != "etherws":
                others.add(name.partition(".")[0])
                continue
            path = name.replace(".", "/").removeprefix("etherws").removeprefix("/")
            while path and path not in MODULES and f"{path}/__init__" not in MODULES:
                path = path.rpartition("/")[0]
            ours.add(path or "__init__")
    return ours, others


def test_each_folder_and_module_has_a_row_in_the_table() -> None:
    assert {room_of(module) for module in MODULES} == ROOMS.keys()
    for room, allowed in ROOMS.items():
        for name in {room, *allowed}:
            assert name in MODULES or (PACKAGE / name).is_dir(), f"{name} is in the table, but not in the house"


def test_a_module_imports_what_its_room_may() -> None:
    faults = []
    for module in sorted(MODULES):
        room = room_of(module)
        allowed = {"errors", "__init__", room, *ROOMS[room]}
        for other in sorted(imported(module)[0]):
            if other not in allowed and room_of(other) not in allowed:
                faults.append(f"{module} imports {other}")
    assert not faults, "\n".join(faults)


def test_a_pure_module_imports_nothing_from_outside() -> None:
    found = {module: outside for module in sorted(PURE) if (outside := imported(module)[1] & OUTSIDE)}
    assert found == {}


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_its_doors(library: str) -> None:
    assert {module for module in MODULES if library in imported(module)[1]} == DOORS[library]


def test_only_the_command_line_prints_or_exits() -> None:
    faults = []
    for module in sorted(MODULES):
        for node in nodes(module):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called in ("print", "exit", "quit", "input"):
                faults.append(f"{module}, line {node.lineno}: {called}()")
    assert not faults, "\n".join(faults)


def test_a_module_can_be_read_in_one_sitting() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in sorted(lines.items()) if count > LINES_MAX} == {}


def test_no_test_file_imports_another() -> None:
    pattern = re.compile(r"^from tests(\.\w+)*\.test_|^from tests[\w.]* import test_", re.MULTILINE)
    found = [path.name for path in Path(__file__).parent.rglob("test_*.py") if pattern.search(path.read_text())]
    assert found == []


def test_the_access_room_has_no_event_loop() -> None:
    for module in MODULES:
        if room_of(module) == "access":
            assert "gevent" not in imported(module)[1], module


def test_the_command_line_imports_no_more_than_it_needs() -> None:
    # Each start pays for it, and how long a restart takes is what its clients notice.
    late = (
        "bcrypt",
        "cryptography",
        "etherws.bundle.archive",
        "etherws.check.network",
        "prometheus_client",
        "pyroute2",
    )
    code = f"import sys, etherws.cli; print([name for name in {late} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_importing_the_application_opens_patches_and_parses_nothing() -> None:
    # libffi, below ctypes, keeps its own library open on some systems; that is none of ours.
    code = (
        "import ctypes, os, sys; before = set(os.listdir('/proc/self/fd'));"
        "import etherws.wsgi, gevent.monkey, gevent._hub_local as local;"
        "assert set(os.listdir('/proc/self/fd')) == before, os.listdir('/proc/self/fd');"
        "assert not gevent.monkey.saved, gevent.monkey.saved;"
        "assert local.get_hub_if_exists() is None"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ETHERWS_SERVER_MTU": "garbage", "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_public_names_stay() -> None:
    """What docs/embedding.rst documents, and what setup.py, gunicorn's command line and ``python -m`` name."""
    from etherws.cli import main
    from etherws.handler import Handler
    from etherws.server import Server
    from etherws.settings import ServerSettings
    from etherws.worker import Worker
    from etherws.wsgi import Application, application

    for name in (main, application, Application, Handler, Server, ServerSettings, Worker):
        assert callable(name)
