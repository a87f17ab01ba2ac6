"""DECISIONS, pure: no Ray, no input or output, no clock, no hidden randomness; the simulator runs the same code."""
