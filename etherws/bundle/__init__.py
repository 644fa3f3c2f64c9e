"""``etherws bundle``: one archive for a bug report, without secrets, and without public addresses unless asked for."""
