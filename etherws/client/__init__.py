"""The client's way to its server: dial, proxy, TLS, upgrade, and again. Start reading at reconnect.py."""
