"""The machine has what it is there for."""

import pytest


@pytest.mark.vm
def test_systemd_is_pid_1() -> None:
    with open("/proc/1/comm") as file:
        assert file.read() == "systemd\n"
