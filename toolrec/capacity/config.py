"""Settings of `toolrec plan`."""

from __future__ import annotations

from pathlib import Path

from toolrec.util.settings import REQUIRED, Settings, setting


class PlanSettings(Settings):
    """What is to be simulated, what the endpoint allows, and what the cluster is made of."""

    users: int = setting(REQUIRED, "Users to simulate.", flag="--users", ge=1)
    latency_s: float = setting(5.0, "Seconds that the endpoint takes for a reply.", flag="--llm-latency-s", ge=0)
    requests_per_minute: float | None = setting(
        None, "Requests that the endpoint allows a minute; null for any number.", flag="--requests-per-minute", gt=0
    )
    tokens_per_minute: float | None = setting(
        None, "Tokens of prompts and replies that it allows a minute; null for any number.", flag="--tokens-per-minute", gt=0
    )
    requests_per_user: float | None = setting(
        None, "LLM requests a user; null for the measured number.", flag="--requests-per-user", gt=0
    )
    concurrency: int | None = setting(None, "Users in flight at most; null for as many as it takes.", flag="--concurrency", ge=1)
    nodes: int | None = setting(None, "Nodes at most; null for as many as it takes.", flag="--nodes", ge=1)
    hours: float | None = setting(
        None, "Hours that the run may take; null for as fast as it can be. Fewer nodes do then.", flag="--hours", gt=0
    )
    cpus_per_node: float = setting(16.0, "CPUs of a node.", flag="--cpus-per-node", gt=0)
    memory_per_node_gib: float = setting(64.0, "Memory of a node, in GiB.", flag="--memory-per-node-gib", gt=0)
    utilisation: float = setting(0.7, "Share of a core that is planned with; the rest is for peaks.", gt=0, le=1)
    usd_per_node_hour: float | None = setting(None, "Dollars for a node and an hour.", flag="--usd-per-node-hour", ge=0)
    prices: Path | None = setting(None, "YAML file of model prices.", flag="--prices", env="TOOLREC_PRICES")
    model: str | None = setting(None, "Model whose price is taken.", flag="--llm-model", env="TOOLREC_LLM_MODEL")
    run: Path | None = setting(
        None, "A run (a dry run will do) whose requests and tokens a user are taken in place of the measured ones.", flag="--run"
    )
    costs: Path | None = setting(None, "File of measured costs; default: those that come with the package.", flag="--costs")
    measure: Path | None = setting(
        None, "Data set folder: measure on this machine first, with the embedded rules as the LLM.", flag="--measure"
    )
    recommenders: Path | None = setting(
        None, "With --measure: recommenders' folder; default recommenders/NAME.", flag="--recommenders"
    )
    measured_users: int = setting(1000, "With --measure: users that are simulated.", flag="--measured-users", ge=10)
    out: Path | None = setting(None, "With --measure: where the costs are written, for --costs.", flag="--out", is_output=True)
