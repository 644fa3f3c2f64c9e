"""What a process's configuration file says, in the form of its options: texts, and whole names of files.

Nothing is redacted here: processes.py, which asks, learns and hides what is secret in it. Read next:
config/configuration.py.
"""

from __future__ import annotations

from etherws.config.configuration import load
from etherws.errors import EtherwsError
from etherws.file_names import FILE_OPTIONS


def values(path: str) -> dict[str, list[str]]:
    """The values by the names of the options, with underscores; none if the file cannot be read, or has a mistake."""
    try:
        found = load(path)
    except EtherwsError:
        return {}
    result: dict[str, list[str]] = {}
    for key, value in found.values.items():
        name = key.replace("-", "_")
        texts = [str(each) for each in (value if isinstance(value, list) else [value])]
        if name in FILE_OPTIONS:
            texts = [*map(found.join, texts)]
        if name == "header":
            texts = [f"@{found.join(text[1:])}" if text.startswith("@") else text for text in texts]
        result[name] = texts
    return result
