"""What a run shows while it is under way: on the terminal, in the log, and to Prometheus."""
