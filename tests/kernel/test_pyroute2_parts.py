"""That a start imports a part of pyroute2 only, and that the rest is there for who asks. In other processes: the tests
themselves use all of it."""

from __future__ import annotations

import subprocess
import sys


def said(code: str) -> str:
    """What this program prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_rest_is_imported_only_for_who_asks() -> None:
    assert said(
        "import sys; from etherws.kernel.pyroute2_parts import IPRoute, NetlinkError\n"
        "print('pyroute2.ndb.main' in sys.modules)\n"
        # By the way of a module, and by that of a name.
        "from pyroute2 import config, netns\n"
        "print('pyroute2.ndb.main' in sys.modules)\n"
        "import pyroute2; from pyroute2 import IPRoute as same, NDB\n"
        "print('pyroute2.ndb.main' in sys.modules, same is IPRoute, pyroute2.NetlinkError is NetlinkError)\n"
        "print(hasattr(pyroute2, 'no_such_name'), hasattr(pyroute2, '__no_such__'), type(pyroute2).__name__)"
    ).splitlines() == ["False", "False", "True True True", "False False module"]


def test_who_has_all_of_it_already_keeps_it() -> None:
    assert (
        said(
            "import pyroute2, sys; from etherws.kernel.pyroute2_parts import IPRoute\n"
            "print(sys.modules['pyroute2'] is pyroute2, pyroute2.IPRoute is IPRoute)"
        )
        == "True True"
    )
