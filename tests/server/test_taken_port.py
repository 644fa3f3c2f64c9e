"""The program that has a port is named, and no other."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from etherws.server.taken_port import listening_program
from tests.lab.hosts import Host


def us() -> str:
    """This process, which pytest's plugin for several processes names anew for each test."""
    return f" by {Path('/proc/self/comm').read_text().rstrip()} (pid {os.getpid()})"


def test_who_listens_is_named_by_address(host: Host) -> None:
    families = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}
    for address, other in (("127.0.0.1", "127.0.0.2"), ("::1", "::2")):
        listener = host.socket(families[address], socket.SOCK_STREAM)
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        with host.namespace.inside():
            # It does not listen yet.
            assert listening_program("", port) == ""
            listener.listen()
            assert listening_program(address, port) == us()
            assert listening_program("", port) == us()
            assert listening_program(other, port) == ""
            assert listening_program(address, port ^ 1) == ""


def test_who_listens_on_all_addresses_is_named(host: Host) -> None:
    with host.namespace.inside(), socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        assert listening_program("192.0.2.1", both.getsockname()[1]) == us()
        assert listening_program("fe80::1%lo", both.getsockname()[1]) == us()
    with host.namespace.inside(), socket.create_server(("", 0)) as only_ipv4:
        assert listening_program("192.0.2.1", only_ipv4.getsockname()[1]) == us()
        assert listening_program("::1", only_ipv4.getsockname()[1]) == ""
