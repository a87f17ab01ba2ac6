"""WHAT OUTLIVES A PROCESS: metadata in SQL, artifacts in a content-addressed repository."""
