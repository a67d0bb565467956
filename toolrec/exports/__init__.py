"""A run for other programs: flat tables, trajectories for fine-tuning, logs of inspect_ai, OpenTelemetry spans, trackers."""
