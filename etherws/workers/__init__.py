"""Several processes that share one server's ports: who has the ports, who serves the clients, and what they say."""
