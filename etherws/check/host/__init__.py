"""The doctor of this machine: what etherws is allowed, what the kernel can, and what may stop frames."""
