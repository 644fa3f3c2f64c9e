"""What the commands for an operator do: find a running etherws, ask it, tell it, and show the answer."""
