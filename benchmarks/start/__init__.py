"""How soon a replica that is not there yet answers its first query."""
