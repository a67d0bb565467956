"""Flow control of a run: the governor's actor, the driver's watch over it, its budget, and outages."""
