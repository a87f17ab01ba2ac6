"""What generated variants are worth, on CPU."""
