"""The doctor: ``etherws check`` looks at a path to a server, at this machine, or at a file, and says what to mend."""
