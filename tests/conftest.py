"""Fixtures: the machines of lab/hosts.py, certificates, and a network of the tests' own."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator

import gevent
import pytest
from hypothesis import HealthCheck, settings

from etherws.kernel.netns import Namespace, enter_user_namespace
from tests.lab import forked
from tests.lab.hosts import Host, cable
from tests.lab.pki import Authority, Certificate, make_certificate
from tests.lab.refusals import Tell

# `make test` takes the same examples each time: what fails there fails again, and comes of a change. `make fuzz` takes
# others each time, again and again (tests/fuzz/run.py). How long an example takes says nothing on a busy machine, so no
# profile judges it.
settings.register_profile(
    "test", max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("test"), max_examples=30)
settings.register_profile("fuzz", settings.get_profile("test"), max_examples=200, derandomize=False)
settings.load_profile("test")

_numbers = itertools.count()

#: Fixtures of tests that need network namespaces; others of tests/ are made of these.
NAMESPACES = {"network", "root"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need network namespaces, for `make quick` to leave out; put the long ones first, so that no
    worker is alone with one at the end."""
    for item in items:
        if isinstance(item, pytest.Function) and NAMESPACES & set(item.fixturenames):
            item.add_marker("namespaces")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A long packet is named by its length: pytest-xdist runs nothing if the names differ from one of its processes to
    the next, and there may be random bytes in it."""
    return f"{argname} of {len(val)}" if isinstance(val, bytes) and len(val) > 32 else None


@pytest.fixture(autouse=True, scope="session")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What etherws keeps for its next start is not the machine's, also of the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def own_state_folder(state_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has another one: its namespaces are other machines."""
    monkeypatch.setenv("STATE_DIRECTORY", f"{os.environ['STATE_DIRECTORY']}/{next(_numbers)}")


@pytest.fixture(autouse=True, scope="session")
def control_folder() -> Iterator[str]:
    """Where control sockets are in place of the machine's /run. Their path must be short."""
    with tempfile.TemporaryDirectory(prefix="ew") as folder:
        # Also for processes that run as other users.
        os.chmod(folder, 0o755)
        with pytest.MonkeyPatch.context() as patch:
            for role in ("server", "client"):
                patch.setenv(f"ETHERWS_{role.upper()}_CONTROL", f"{folder}/{role}")
            yield folder


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """What a test sets the level of the log to is not for those that follow."""
    log = logging.getLogger("etherws")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(autouse=True)
def clock() -> None:
    """gevent takes the time at which its loop last ran for now, and the tests that run it are minutes apart."""
    gevent.get_hub().loop.update_now()


@pytest.fixture(scope="session")
def network() -> Iterator[None]:
    """Puts this process into a network namespace of its own, so that nothing of the machine's is touched."""
    try:
        try:
            namespace = Namespace()
        except PermissionError:
            enter_user_namespace()
            namespace = Namespace()
    except OSError as exc:
        pytest.skip(f"no network namespaces for this user here: {exc}")
    namespace.configure("lo")
    with contextlib.closing(namespace), namespace.inside():
        yield


@pytest.fixture(scope="session")
def starter() -> Iterator[forked.Starter]:
    """A process that forks those of etherws."""
    with contextlib.closing(forked.Starter()) as process:
        yield process


@pytest.fixture
def forks_etherws(starter: forked.Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's processes of etherws are forked, since their start is not what it tests (lab/forked.py)."""
    monkeypatch.setattr(forked, "current", starter)


@pytest.fixture
def host(network: None) -> Iterator[Host]:
    """One machine."""
    with contextlib.closing(Host()) as machine:
        yield machine


@pytest.fixture(scope="module")
def shared_host(network: None) -> Iterator[Host]:
    """One machine for the tests of a module that leave what they share as they found it."""
    with contextlib.closing(Host()) as machine:
        yield machine


@pytest.fixture
def hosts(network: None) -> Iterator[tuple[Host, Host]]:
    """Two machines with a cable between: 192.0.2.1 and 192.0.2.2."""
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        cable(one, other, "192.0.2.1/24", "192.0.2.2/24")
        yield one, other


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost and the tests' servers, which is its own authority."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tun_for_all() -> None:
    """Every user may open /dev/net/tun, as where udev is; without udev it may be for root alone."""
    if os.stat("/dev/net/tun").st_mode & 0o006 != 0o006:
        pytest.skip("other users may not open /dev/net/tun here: chmod 666 /dev/net/tun")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Notes how a refusal went, for the table that ``--refusals FILE`` asks for: the case, what the server said, what
    the client said, and what came of it."""
    path = request.config.getoption("--refusals")

    def note(*row: str) -> None:
        if path:
            with open(path, "a", encoding="utf-8") as file:
                file.write("\t".join(row) + "\n")

    return note


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our option."""
    parser.addoption("--refusals", metavar="FILE", help="note every refusal that is tested, one a line, in this file")


@pytest.fixture(scope="session")
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
