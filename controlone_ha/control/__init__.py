"""Control: local API of the daemon, the `ha` command, history and metrics.

Imports nothing here: the command must start in a few hundredths of a second, so each of its modules
loads only what the asked thing needs.
"""
