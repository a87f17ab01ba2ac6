"""What serving costs and how well it is served by our planner, by INFaaS and by fixed variants. See README.md."""
