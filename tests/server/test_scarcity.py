"""What is said, and to whom, when descriptors or memory run out."""

from __future__ import annotations

import errno
import resource

import pytest

from etherws.errors import DeviceError, EtherwsError, NoPort
from etherws.server import scarcity
from etherws.server.scarcity import QUIET, Scarcity


class Clock:
    """One that is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def lack(number: int) -> DeviceError:
    error = DeviceError(f"cannot: {number}")
    error.__cause__ = OSError(number, "so")
    return error


@pytest.mark.parametrize(
    ("limit", "clients"), [(-1, None), (1 << 20, None), (4096, None), (1024, 298), (256, 42), (64, 0)]
)
def test_who_may_have_too_few_files_open_is_told_for_how_many_they_are(
    monkeypatch: pytest.MonkeyPatch, limit: int, clients: int | None
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    said = scarcity.descriptors_warning()
    if clients is None:
        assert said is None
    else:
        assert said == (
            f"{limit} open files are allowed: enough for about {clients} clients, fewer with several"
            " connections; allow more open files by LimitNOFILE"
            " in the systemd unit, or by ulimit -n"
        )


def test_a_lack_that_comes_and_goes_is_one_warning() -> None:
    clock = Clock()
    short = Scarcity(clock)
    for number in (errno.EMFILE, errno.EMFILE, errno.EXFULL, errno.EXFULL):
        refused = short.refusal(lack(number))
        assert (refused.status, dict(refused.headers)) == ("503 Service Unavailable", {"Retry-After": "10"})
    assert short.refusal(lack(errno.EMFILE)).warning == ""
    short.enough()
    # At the limit one is let in now and then. A bridge that was full may have been mended.
    assert short.refusal(lack(errno.EMFILE)).warning == ""
    assert short.refusal(lack(errno.EXFULL)).warning == f"was refused: cannot: {errno.EXFULL}"
    clock.now += QUIET
    assert short.refusal(lack(errno.EMFILE)).warning == f"was refused: cannot: {errno.EMFILE}"
    assert "no memory is left; give the machine" in short.refusal(MemoryError()).warning
    short.enough()
    assert short.refusal(MemoryError()).warning == ""


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "no")])
def test_without_memory_there_is_no_port_and_what_runs_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(_: int) -> object:
        raise error

    short = Scarcity()
    short.require_memory()
    assert scarcity.has_memory(1)
    monkeypatch.setattr(scarcity, "anonymous_memory", refuse)
    with pytest.raises(NoPort, match="no memory for one more client; give the machine or the container more"):
        short.require_memory()
    with short.survived("192.0.2.1"):
        raise error
    assert caplog.text.count("192.0.2.1: its tunnel ends: no memory is left") == 1
    with pytest.raises(EtherwsError), short.survived("192.0.2.1"):
        raise EtherwsError("else")
    with pytest.raises(OSError, match="else"), short.survived("192.0.2.1"):
        raise OSError(errno.EIO, "else")
