"""The states of one port's rules: what the kernel has in force, and for whom.

Plain data. Only port_filter.py changes a state. Read next: port_filter.py.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from etherws.kernel.rules import Rules


class FilterState(Enum):
    """What the kernel has in force for a port, and whose frames have passed it.

    The number of source addresses is a rule that learns: the addresses of the first frames are the client's.
    """

    #: None of our rules.
    ABSENT = "absent"
    #: Rules that no frame has passed since they were put in: good for any client that needs the same.
    UNUSED = "unused"
    #: Rules that frames of the present client have passed, or may pass from now on.
    USED = "used"
    #: Rules that frames of an earlier client have passed: what they have learnt is wrong for the present one.
    OUTDATED = "outdated"
    #: Others have removed or changed rules that were UNUSED or USED. They are about to be put back.
    LOST = "lost"


class Applied(NamedTuple):
    """The rules that the kernel has in force, and the name that the interface had when they were put in. Without a name
    none is: the interface is in another network namespace, and nobody asked for these rules."""

    name: str
    rules: Rules
