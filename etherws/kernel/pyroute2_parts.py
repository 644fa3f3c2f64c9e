"""What we use of pyroute2, without the rest: to import all of it took a quarter of a start's time.

pyroute2's package imports each of its parts: a database of interfaces, IPVS, Wi-Fi, WireGuard, and more. Here the
package is registered without that, so only what is asked for is imported. Whoever asks the package for any other name
gets all of it as usual. Users: all who need pyroute2. Read next: interfaces.py; links.py, for what each client needs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

NAME = "pyroute2"


class _Package(ModuleType):
    """The package, until somebody asks for a name that no module of it has."""

    def __getattr__(self, name: str) -> Any:
        """As of any module. Called for what is not there yet. Raises AttributeError."""
        if name.startswith("__"):
            raise AttributeError(name)
        # 'from pyroute2 import config' asks the package before it looks for a module of that name.
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"{NAME}.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__loader__
        self.__loader__.exec_module(self)  # type: ignore[attr-defined]
        return getattr(self, name)


def register() -> None:
    """Have pyroute2's modules imported one by one, unless somebody has imported it already."""
    if NAME not in sys.modules and (spec := importlib.util.find_spec(NAME)):
        package = _Package(NAME)
        package.__spec__, package.__loader__, package.__file__ = spec, spec.loader, spec.origin
        package.__path__ = list(spec.submodule_search_locations or ())
        package.__package__ = NAME
        sys.modules[NAME] = package


register()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

__all__ = ["IPRoute", "NetlinkError"]
