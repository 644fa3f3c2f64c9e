"""The process of a server or client: in the background, its log, its rights, and the image that follows it."""
