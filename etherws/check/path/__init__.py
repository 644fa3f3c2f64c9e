"""The doctor of a path to a server: names, proxies, TCP, TLS, HTTP, and a session that is measured."""
