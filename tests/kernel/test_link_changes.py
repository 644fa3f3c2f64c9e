"""Which interfaces rtnetlink's messages are about."""

from __future__ import annotations

import struct

from etherws.kernel.link_changes import Touched, touched
from etherws.kernel.netlink import HEADER


def message(kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body


def test_links_ports_and_queueing_disciplines_are_found_by_their_index() -> None:
    link, port = struct.pack("=BxHiII", 0, 1, 5, 0, 0), struct.pack("=BxHiII", 7, 1, 5, 0, 0)
    qdisc = struct.pack("=BxHiIII", 0, 0, 6, 0, 0, 0)
    address = struct.pack("=BBBBI", 2, 24, 0, 0, 7)
    data = message(16, link) + message(37, qdisc) + message(20, address) + message(16, b"1234")
    assert touched(data) == {5: Touched.NAME, 6: Touched.QUEUE}
    assert touched(data + message(17, port)) == {5: Touched.NAME | Touched.PORT, 6: Touched.QUEUE}


def test_an_interface_that_is_gone_may_be_in_another_namespace() -> None:
    assert touched(message(17, struct.pack("=BxHiII", 0, 1, 5, 0, 0))) == {5: Touched.NAME | Touched.PLACE}
