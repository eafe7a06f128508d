"""Console-side failover client: keeps an operator position on one server that serves it."""
