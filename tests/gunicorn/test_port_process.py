"""The port process of a gunicorn, before it has ports."""

from __future__ import annotations

import array
import os
import socket
import threading

from etherws.gunicorn import port_process


def test_the_listening_socket_is_waited_for_on_a_socket_of_gevents() -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    its.setblocking(False)
    found: list[tuple[int, int, int] | None] = []
    thread = threading.Thread(target=lambda: found.append(port_process.listener(its.detach())))
    thread.start()
    with socket.socket() as given:
        ours.sendmsg([b"1000 77"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given.fileno()]))])
        thread.join()
        assert found[0]
        assert found[0][1:] == (1000, 77)
        assert os.path.sameopenfile(found[0][0], given.fileno())
    os.close(found[0][0])
    ours.close()


def test_one_that_is_not_needed_is_told_so() -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    assert port_process.listener(its.detach()) is None
