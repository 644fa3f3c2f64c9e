"""Who may connect, and what for: credentials, certificates, policy. Files and bytes only; no event loop."""
