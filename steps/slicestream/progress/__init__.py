"""A run as it goes on: what is told of it while it runs, and how a terminal shows that."""
