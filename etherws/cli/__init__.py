"""The ``etherws`` command. Only this folder prints, exits, or imports click."""

from etherws.cli.commands import main

__all__ = ["main"]
