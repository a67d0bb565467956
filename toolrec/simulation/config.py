"""How a simulation is spread over actors, and where its tools come from."""

from __future__ import annotations

from pydantic import field_validator

from toolrec.errors import ConfigError
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSettings
from toolrec.serving.config import AppOptions
from toolrec.util.settings import Settings, branch, setting

DEFAULT_RANK_TOOL = "toolrec.tools.rank:RankTool"


class SimulationSettings(Settings):
    """How users are spread over actors; none of it changes a result."""

    concurrency: int = setting(64, "Users in flight, over all actors.", flag="--concurrency", ge=1, le=1_000_000)
    num_actors: int | None = setting(
        None, "Simulation actors; null for one for each core, spread over the nodes.", flag="--actors", ge=1, le=4_096
    )
    max_attempts: int = setting(5, "Attempts for each user when actors die.", ge=1)
    block_users: int = setting(200, "Number of finished users that are written together.", ge=1)
    block_interval_s: float = setting(
        2.0, "Seconds after the last block, after which finished users are written in any case.", ge=0
    )
    outage_timeout_s: float = setting(
        600.0,
        "Seconds that the endpoint may be down before the run stops; --resume continues it.",
        flag="--outage-timeout-s",
        gt=0,
    )
    resource_timeout_s: float = setting(
        600.0,
        "Seconds to wait for nodes and CPUs, at the start and when all are lost, before the run stops, resumable.",
        flag="--resource-timeout-s",
        gt=0,
    )
    max_failed_requests: int | None = setting(
        None, "Failed HTTP requests before the run stops; --resume continues it.", flag="--max-failed-requests", ge=0
    )


class SimulationConfig(SimulationSettings):
    """The same, with what users may ask of the endpoint together and what the run may spend."""

    flow: FlowSettings = branch(FlowSettings, "What may be asked of the LLM endpoint, over all actors.")
    budget: Budget = branch(Budget, "What the run may spend.")


class ToolsSettings(Settings):
    """Where the tools come from, and which there are."""

    mode: str = setting("deploy", "deploy, attach:APP or local.", flag="--tools")
    attributes: tuple[str, ...] | None = setting(
        None,
        "Attribute tools, comma separated.",
        flag="--attributes",
        none_word="all",
        changes_results=True,
        stored_as="attributes",
    )
    rank_tool: str = setting(
        DEFAULT_RANK_TOOL,
        "The rank tool: MODULE:CLASS or an entry point.",
        flag="--rank-tool",
        changes_results=True,
        stored_as="rank_tool",
    )
    keep: bool = setting(False, "Leave the deployed application running after the run.", flag="--keep-tools")
    deployment: AppOptions = branch(
        AppOptions, "The application that `deploy` starts (replicas, CPUs).", file_flag="--tools-config"
    )

    @field_validator("mode")
    @classmethod
    def _known_mode(cls, mode: str) -> str:
        if mode not in ("deploy", "local") and not mode.startswith("attach:"):
            raise ConfigError("unknown source of tools", value=mode, allowed="deploy, attach:APP or local")
        return mode
