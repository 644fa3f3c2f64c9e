"""What Linux does for us, by netlink: interfaces, rules, news of the network, namespaces. No frame passes here."""
