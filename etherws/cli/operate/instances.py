"""The servers and clients that run on this machine, by their control sockets: which there are, and which one is meant.

Each has a folder of its name, server-lan or client-ethws0, in a folder of root's or of this user's. Read next:
control.py, which asks one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from etherws.cli.operate.cells import shown
from etherws.cli.operate.control import Control
from etherws.counters import Values
from etherws.errors import ControlError, NotAllowed, NotRunning, some_of
from etherws.observe.control_socket import NAME, RUN_FOLDER

#: What the name of such a folder begins with.
ROLES = ("server-", "client-")

#: Instances that a message names.
NAMED = 10


def folders() -> list[str]:
    """Where this user's processes, and root's, have their control sockets."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    # A user could put what he likes there, so root looks at root's alone.
    return [RUN_FOLDER, *([os.path.join(own, "etherws")] if os.path.isabs(own) and os.geteuid() != 0 else [])]


def all_instances(where: Iterable[str] | None = None) -> list[Control]:
    """All instances on this machine, by name, those that have died and left their socket included. Raises NotAllowed
    if there are none but in folders that this user may not read."""
    found, closed = [], ""
    for folder in folders() if where is None else where:
        try:
            names = sorted(os.listdir(folder))
        except PermissionError:
            closed = folder
            continue
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name, NAME)
            if name.startswith(ROLES) and _is_there(path):
                found.append(Control(path, shown(name)))
    if not found and closed:
        raise NotAllowed(f"only root may look into {closed}; try sudo")
    return found


def chosen(name: str | None, control: str | None, *, role: str = "") -> Control:
    """The one that is meant: by the path of its socket in `control`, by its name, or because no other runs. With a
    `role`, those of the other role do not count, unless the name says so. Raises ControlError."""
    if control is not None:
        return Control(control)
    found = matching(all_instances(), name) if name else all_instances()
    if role and len(found) > 1:
        found = [each for each in found if each.name.startswith(f"{role}-")] or found
    if not name and len(found) > 1:
        # What died is not meant, if something runs.
        found = [each for each in found if _listens(each)] or found
    if not found:
        raise NotRunning(nothing_runs(name))
    if len(found) > 1:
        # Root and this user may each have one of the same name.
        same = len({each.name for each in found}) < len(found)
        names = some_of([f"{each.name} ({each.path})" if same else each.name for each in found], NAMED)
        what = f"several are called {shown(name)}" if name else "several run here"
        raise ControlError(f"{what}: {names}; name one of them, or its socket by --control")
    return found[0]


def matching(found: Sequence[Control], name: str) -> list[Control]:
    """Those that the name means: server-lan; lan; the unit's name; the name of the interface."""
    plain = re.sub(r"^etherws-(server|client)@(.*?)(\.service)?$", r"\1-\2", name)
    for names in ((plain,), tuple(role + plain for role in ROLES)):
        if exact := [each for each in found if each.name in names]:
            return exact
    by_device = []
    for each in found:
        try:
            status = each.get("/status")
        except ControlError:
            continue
        if plain in (status.get("device"), status.get("name")) or plain in _devices(status):
            by_device.append(each)
    return by_device


def nothing_runs(name: str | None = None) -> str:
    """What is said if there is nothing to ask."""
    if name is not None:
        known = some_of([each.name for each in all_instances()], NAMED)
        return f"nothing called {shown(name)} runs on this machine" + (f"; there is {known}" if known else "")
    return (
        "neither a server nor a client of etherws runs on this machine, as far as can be seen: one that was started"
        " with --control FILE is found by the same --control FILE"
    )


def _devices(status: Values) -> list[object]:
    sessions = status.get("sessions")
    return [each.get("device") for each in sessions if isinstance(each, dict)] if isinstance(sessions, list) else []


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _listens(control: Control) -> bool:
    try:
        control.process()
    except NotRunning:
        return False
    except ControlError:
        return True
    return True
