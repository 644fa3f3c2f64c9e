"""One try to reach a server and to be let in by it, without joining its LAN: for ``etherws init client``.

Read next: client/attempt.py, which makes the attempt; network.py, which looks at each step of one.
"""

from __future__ import annotations

import os

from etherws import features
from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.uris import split_uri
from etherws.close_codes import CloseCode
from etherws.settings import DeviceSettings, Trust


def trial(uri: str, pin: str, token: str) -> None:
    """Connect, and close the connection. With a `pin` the server's key must have it, else its certificate must verify.
    Raises ConnectError: OtherKey, NotAdmitted and others; and SettingsError for what cannot be used."""
    trust = Trust(insecure=True, pins=frozenset([pin])) if pin else Trust()
    server = RemoteServer(
        split_uri(uri)[0],
        DeviceSettings(),
        proxy_choice=ProxyChoice(None, None, None, 0, os.environ),
        trust=trust,
        credentials=Credentials(token=token),
        also_offer={features.CHECK: features.check_value(features.CHECK)},
    )
    server.connect().close(CloseCode.NORMAL)
