"""What a node writes into its database for good: ended calls, recordings, sessions of consoles."""
