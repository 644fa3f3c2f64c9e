"""What a network card of a test can do by itself."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from etherws.kernel.netns import Namespace

#: include/uapi/linux/sockios.h, ethtool.h
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_GTSO, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1E, 0x1F, 0x24


def without_offloads(namespace: Namespace, name: str) -> None:
    """Have the interface send finished frames only, as a machine whose driver can do nothing."""
    for command in (ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM):
        _ethtool(namespace, name, command)


def takes_super_frames(namespace: Namespace, name: str) -> bool:
    """Whether the kernel gives this interface large TCP frames that are not cut yet."""
    return bool(_ethtool(namespace, name, ETHTOOL_GTSO))


def _ethtool(namespace: Namespace, name: str, command: int) -> int:
    """Set a feature to 0, or read it."""
    value = ctypes.create_string_buffer(struct.pack("II", command, 0), 8)
    with namespace.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(value)))
    return int(struct.unpack("II", value.raw)[1])
