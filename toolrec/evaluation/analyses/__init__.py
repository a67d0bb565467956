"""Analyses beside the headline figures: beyond accuracy, by user group, and whether a prompt held a target."""
