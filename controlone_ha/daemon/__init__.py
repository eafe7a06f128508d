"""The HA daemon: composition root and loop around the pure core."""
