"""The shared memory actor, which keeps the completed rounds of every user in flight, and the driver's end of it."""
