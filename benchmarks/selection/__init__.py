"""How long a decision takes, and how that grows with the number of variants."""
