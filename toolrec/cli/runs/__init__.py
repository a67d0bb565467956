"""Commands that look at a run folder, or change what runs in it."""
