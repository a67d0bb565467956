"""What can be set of the application; checked here, before anything is deployed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_VARIABLE = "[A-Za-z_][A-Za-z0-9_]*"


class DeploymentOptions(BaseModel):
    """Size of one deployment.

    Serve's own defaults (one CPU a replica, 5 requests under way) neither fit six deployments on two cores nor let
    batches form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_replicas: int = Field(1, ge=1, description="replicas; ignored where max_replicas is given")
    min_replicas: int = Field(1, ge=0, description="autoscaling's lower bound")
    max_replicas: int | None = Field(None, ge=1, description="autoscaling's upper bound; None for a fixed number")
    target_ongoing_requests: float = Field(32, gt=0, description="requests under way a replica that autoscaling aims at")
    num_cpus: float = Field(0.1, ge=0, description="CPUs reserved a replica, fractions allowed")
    num_gpus: float = Field(0.0, ge=0, description="GPUs reserved a replica, fractions allowed")
    num_threads: int = Field(1, ge=1, description="torch threads a replica")
    max_ongoing_requests: int = Field(512, ge=1, description="requests under way a replica")
    max_batch_size: int = Field(16, ge=1, description="requests scored together at most")
    batch_wait_timeout_s: float = Field(0.0, ge=0, description="seconds a request waits for company")

    @model_validator(mode="after")
    def _bounds(self) -> DeploymentOptions:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self

    def serve_options(self) -> dict[str, Any]:
        """The keyword arguments of `Deployment.options`."""
        options: dict[str, Any] = {
            "max_ongoing_requests": self.max_ongoing_requests,
            "graceful_shutdown_wait_loop_s": 0.2,
            "graceful_shutdown_timeout_s": 10.0,
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus},
        }
        if self.max_replicas is None:
            return {**options, "num_replicas": self.num_replicas}
        autoscaling = {
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.target_ongoing_requests,
        }
        return {**options, "autoscaling_config": autoscaling}


class AppConfig(BaseModel):
    """Arguments of `build_app`; on the command line of `serve run` as `dataset=… recommenders=…`.

    Errors do not quote what was given: it may be a key in the place of its variable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dataset: str = Field(description="the data set's folder, as `toolrec data prepare` writes it")
    recommenders: str = Field(description="the recommenders' folder, as `toolrec train` writes it")
    attributes: list[str] | None = Field(None, description="attribute tools to deploy; None for all that were trained")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="where the recommenders run")
    llm_url: str | None = Field(None, description="endpoint of the rank tool; None for the embedded rules")
    llm_model: str | None = Field(None, description="model name at that endpoint")
    llm_key_env: str = Field(
        "OPENAI_API_KEY", pattern=f"^{_VARIABLE}$", description="environment variable that holds the key, on the replicas' nodes"
    )
    token_env: str | None = Field(
        None,
        pattern=f"^{_VARIABLE}$",
        description="environment variable that holds the bearer token of HTTP requests, on the replicas' nodes; needed "
        "where Serve listens on another address than this machine's own",
    )
    max_body_bytes: int = Field(512 * 1024, ge=1024, le=64 * 1024**2, description="the longest body of an HTTP request")
    requests_per_minute: float | None = Field(
        6000.0, gt=0, allow_inf_nan=False, description="HTTP requests of one client address; None for no bound"
    )
    request_burst: int = Field(200, ge=1, description="HTTP requests that one client address may make at once")
    is_routed: bool = Field(True, description="whether HTTP reaches the application at all; a run's own tools need none")
    tools: DeploymentOptions = Field(default_factory=DeploymentOptions, description="backbone and attribute tools")
    rank: DeploymentOptions = Field(default_factory=DeploymentOptions, description="the rank tool")
    ingress: DeploymentOptions = Field(default_factory=DeploymentOptions, description="the HTTP door")
    overrides: dict[str, DeploymentOptions] = Field(
        default_factory=dict, description="options by tool name (`backbone` or an attribute) in place of `tools`"
    )

    @field_validator("attributes", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _llm_pair(self) -> AppConfig:
        if self.llm_url is not None and not self.llm_model:
            raise ValueError("llm_url needs llm_model")
        return self

    @model_validator(mode="after")
    def _gpus(self) -> AppConfig:
        if self.device.startswith("cuda") and any(o.num_gpus == 0 for o in (self.tools, *self.overrides.values())):
            # Ray hides every GPU from a replica that reserves none.
            raise ValueError(f"device {self.device} needs num_gpus above 0 in `tools` and in every override, as 0.2")
        return self

    def door_rules(self) -> dict[str, Any]:
        """The bounds of the HTTP door, without its token."""
        return {
            "max_body_bytes": self.max_body_bytes,
            "requests_per_minute": self.requests_per_minute,
            "burst": self.request_burst,
        }

    def options_for(self, member: str) -> DeploymentOptions:
        """The options of one tool."""
        return self.overrides.get(member, self.tools)
