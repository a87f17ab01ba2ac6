"""The plan of a fleet: how many replicas of which variant on how many workers of which type, as an integer program."""
