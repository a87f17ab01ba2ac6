"""How fast the path from a socket to a model is, beside that of other servers. See README.md."""
