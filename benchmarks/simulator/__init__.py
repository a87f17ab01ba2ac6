"""How fast the simulator is, and whether its memory grows with the number of queries. See README.md."""
