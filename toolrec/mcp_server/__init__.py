"""The tools of a data set for other agents, as an MCP server."""
