"""A whole cluster on one machine, on real parts."""
