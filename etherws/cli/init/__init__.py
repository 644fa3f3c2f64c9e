"""``etherws init``: makes the set-up of a server or a client."""
