"""Conference Server: the controller of an Asterisk over ARI, owner of its calls."""
