"""Strategies of scaling: each looks at fleet and traffic and gives orders to start and to drain replicas."""
