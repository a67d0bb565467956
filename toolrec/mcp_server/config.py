"""Settings of the MCP server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from toolrec.connect import RaySettings
from toolrec.errors import ConfigError
from toolrec.evaluation.config import HeldOutSplit
from toolrec.llm.config import EndpointSettings
from toolrec.simulation.config import DEFAULT_RANK_TOOL
from toolrec.tools.settings import ToolSettings
from toolrec.util.settings import REQUIRED, Settings, branch, setting


class OfferedTools(Settings):
    """Where the tools come from, and which there are."""

    mode: str = setting("local", "attach:APP or local.", flag="--tools")
    attributes: tuple[str, ...] | None = setting(None, "Attribute tools, comma separated.", flag="--attributes", none_word="all")
    rank_tool: str = setting(DEFAULT_RANK_TOOL, "The rank tool: MODULE:CLASS or an entry point.", flag="--rank-tool")

    @field_validator("mode")
    @classmethod
    def _known_mode(cls, mode: str) -> str:
        if mode != "local" and (not mode.startswith("attach:") or mode == "attach:"):
            raise ConfigError("unknown source of tools", value=mode, allowed="attach:APP or local")
        return mode


class McpConfig(Settings):
    """What is offered to MCP clients, and how."""

    dataset: Path = setting(REQUIRED, "Data set folder, as `toolrec data prepare` writes it.", argument="DIR")
    recommenders: Path | None = setting(None, "Recommenders' folder; default recommenders/NAME.", flag="--recommenders")
    transport: Literal["stdio", "http"] = setting(
        "stdio", "Standard input and output, or streamable HTTP on loopback.", flag="--transport"
    )
    port: int = setting(8398, "Port of --transport http; 0 takes a free one.", flag="--port", ge=0, le=65_535)
    split: HeldOutSplit = setting("test", "Histories end before the users' held-out items of this split.", flag="--split")
    list_length: int = setting(10, "Length of the final list.", ge=1)
    max_visits: int = setting(1_000, "Visits that are kept; the one that was used the longest time ago is forgotten.", ge=1)
    tools: OfferedTools = branch(OfferedTools, "Where the tools come from.")
    answers: ToolSettings = branch(ToolSettings, "How the tools answer.")
    llm: EndpointSettings = branch(EndpointSettings, "Who ranks: how the LLM endpoint of the rank tool is called.")
    ray: RaySettings = branch(RaySettings, "Which Ray `attach:APP` joins.")
