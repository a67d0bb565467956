"""Agents of other frameworks as strategies: they decide, and our tools, memory, limits, records and figures stay."""
