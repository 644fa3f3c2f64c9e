"""The control socket: where its file is, and how it is made and removed.

Read next: serve.py, which serves it.
"""

from __future__ import annotations
