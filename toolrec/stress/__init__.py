"""What robustness experiments spoil on purpose: the lists that an LLM writes, and the histories that it reads."""
