"""Measuring: SIP and console requests, the host, links, the database. Imports nothing heavy."""
