"""`toolrec mcp`: the tools for other agents."""

from __future__ import annotations

import typer

from toolrec.cli.settings import resolved


def mcp(ctx: typer.Context) -> None:
    """Offer retrieve, rank, item look-up and the pool's attributes as an MCP server."""
    config = resolved(ctx).settings

    from toolrec.mcp_server.server import serve

    serve(config)
