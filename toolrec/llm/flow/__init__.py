"""How much an endpoint is asked, over all clients of a run: concurrency, rates, pauses and budgets."""
