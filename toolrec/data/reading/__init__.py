"""From files to columns: where files lie, how they are written, what their columns are; every guess is recorded."""
