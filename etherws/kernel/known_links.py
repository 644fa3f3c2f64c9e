"""The links of this machine as netlink has told them: which of them stand on others, are in others, or lead elsewhere.

Pure: what is told is put in by network_changes.py. Read next: network_changes.py. Source: rtnetlink(7).
"""

from __future__ import annotations

from typing import NamedTuple


class Link(NamedTuple):
    """A link."""

    name: str
    master: int
    #: The link that it stands on; 0 if there is none in this network namespace.
    below: int
    running: bool
    #: Whether what it stands on, or its other end, is in another network namespace, as a container's.
    elsewhere: bool
    is_bridge: bool


class KnownLinks(dict[int, Link]):
    """Links by their indexes."""

    def beyond(self, own: str) -> set[int]:
        """The client's interface of this name, and the links that stand on it, such as VLANs."""
        return self._with_above({index for index, link in self.items() if link.name == own})

    def moved_by(self, own: str) -> set[int]:
        """All links that may come up because the client's interface does: also its bridge, and what stands on that."""
        found = self.beyond(own)
        while masters := {link.master for index, link in self.items() if index in found} - found - {0}:
            found = self._with_above(found | masters)
        return found

    def way(self, homes: set[int]) -> set[int]:
        """Those by which frames come to these links: also their ports, and what they stand on."""
        found = homes
        while more := {index for index, link in self.items() if self._bears(index, link, found)} - found:
            found = found | more
        return found

    def is_aside(self, index: int, way: set[int]) -> bool:
        """Whether the link does not matter to a connection that goes by the links `way`: it is one of containers and
        virtual machines. That is another bridge, a port of that, the end of a cable to another network
        namespace, or a link that is gone."""
        if index in way:
            return False
        link = self.get(index)
        return link is None or link.elsewhere or link.is_bridge or link.master not in (0, *way)

    def _bears(self, index: int, link: Link, others: set[int]) -> bool:
        return link.master in others or any(one in self and self[one].below == index for one in others)

    def _with_above(self, found: set[int]) -> set[int]:
        while above := {index for index, link in self.items() if link.below in found} - found:
            found = found | above
        return found
