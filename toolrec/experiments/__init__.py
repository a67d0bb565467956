"""Experiments: grids of evaluations, run cell by cell, and the tables that they come to."""
