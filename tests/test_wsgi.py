"""What gunicorn loads, by its settings. tests/system/test_gunicorn.py has gunicorn itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from etherws import wsgi
from etherws.errors import ConfigError


def test_the_environment_may_name_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lan.toml").write_text("\nmtu = 3\n")
    monkeypatch.setenv("ETHERWS_SERVER_CONFIG", str(tmp_path / "lan.toml"))
    wsgi.from_environ.cache_clear()
    with pytest.raises(ConfigError, match=r"lan\.toml:2:7: --mtu 3 is out of range"):
        wsgi.from_environ()
