"""Thousands of surrogate users at a time, on Ray actors."""
