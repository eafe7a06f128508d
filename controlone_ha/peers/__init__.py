"""The link between nodes: keys, trust, handshake, frames and pairing over SSH (TCP/22)."""
