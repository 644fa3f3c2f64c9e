"""Configuration files, and the set-ups that ``etherws init`` makes."""
