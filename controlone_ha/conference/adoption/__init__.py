"""Adoption of dialogs: calls of parties that do not know Replaces go on at another node.

A re-INVITE inside the old dialog, sent by the new node, moves the party's media; what follows in
that dialog is led from here to its end. See ``pair`` for one leg, ``agent`` for all of them, and
``service`` for sockets, files and what the controller calls.
"""
