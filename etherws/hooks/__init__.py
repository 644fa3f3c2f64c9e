"""Programs of the user's that run when something happens: --up, --down and --change."""
