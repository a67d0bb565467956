"""Training: batches, losses, epochs with early stopping, frozen states, several processes, resume."""
