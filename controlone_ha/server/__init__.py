"""Console Server: TCP/7551, JSON-RPC lines over TLS, for consoles and the peers' watchdogs."""
