"""What generated variants are worth, on an NVIDIA GPU."""
