"""Questions about speed, each answered by a command. See README.md."""
