"""The Session Initiation Protocol (RFC 3261): messages, transactions, dialogs, sockets.

What more than one room needs of it. Only the messages and machines, no policy: who is called and
why is decided elsewhere. Standard library alone.
"""
