"""MODEL FRAMEWORKS: one runtime per file, and what makes and measures variants."""
