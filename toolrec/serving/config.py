"""What can be set of the application; checked here, before anything is deployed."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from toolrec.errors import ConfigError
from toolrec.util.settings import REQUIRED, Settings, branch, setting

_VARIABLE = "[A-Za-z_][A-Za-z0-9_]*"


class DeploymentOptions(Settings):
    """Size of one deployment.

    Serve's own defaults (one CPU a replica, 5 requests under way) neither fit six deployments on two cores nor let
    batches form.
    """

    num_replicas: int = setting(1, "Number of replicas; ignored if max_replicas is given.", ge=1)
    min_replicas: int = setting(1, "Autoscaling's lower bound.", ge=0)
    max_replicas: int | None = setting(None, "Autoscaling's upper bound; null for a fixed number.", ge=1)
    target_ongoing_requests: float = setting(32.0, "Requests in progress for each replica that autoscaling aims at.", gt=0)
    num_cpus: float = setting(0.1, "CPUs reserved for a replica, fractions allowed.", ge=0)
    num_gpus: float = setting(0.0, "GPUs reserved for a replica, fractions allowed.", ge=0)
    num_threads: int = setting(1, "Torch threads of a replica.", ge=1)
    max_ongoing_requests: int = setting(512, "Requests in progress for each replica, at most.", ge=1)
    max_queued_requests: int = setting(
        -1, "Requests that wait for a replica at each caller, at most; others are refused. -1 for no bound.", ge=-1
    )
    max_batch_size: int = setting(16, "Requests scored together at most.", ge=1)
    batch_wait_timeout_s: float = setting(0.0, "Seconds that a request waits to be scored together with others.", ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ConfigError(
                "max_replicas is below min_replicas", value=self.max_replicas, allowed=f"{self.min_replicas} or more"
            )
        return self

    def serve_options(self) -> dict[str, Any]:
        """The keyword arguments of `Deployment.options`."""
        options: dict[str, Any] = {
            "max_ongoing_requests": self.max_ongoing_requests,
            "max_queued_requests": self.max_queued_requests,
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


class IngressOptions(DeploymentOptions):
    """Size of the HTTP ingress: its queues are short, so that overload is refused at once and what is accepted is quick."""

    max_ongoing_requests: int = setting(64, "Requests in progress for each replica, refused ones included.", ge=1)
    max_queued_requests: int = setting(
        32, "Requests that wait for a replica at each proxy; others are refused with 503. -1 for no bound.", ge=-1
    )

    def serve_options(self) -> dict[str, Any]:
        """The keyword arguments of `Deployment.options`."""
        return {**super().serve_options(), "backpressure_config": {"status_code": 503, "retry_after_s": 1}}


class AppOptions(Settings):
    """What can be set of the application that serves the tools, whatever it serves."""

    device: str = setting("cpu", "Where the recommenders run: cpu, cuda or cuda:N.", pattern=r"^(cpu|cuda(:\d+)?)$")
    llm_url: str | None = setting(
        None, "Endpoint of the rank tool over HTTP; without one the embedded rules answer.", is_shown=False
    )
    llm_model: str | None = setting(None, "Model name at that endpoint.")
    llm_key_env: str = setting(
        "OPENAI_API_KEY",
        "Environment variable that holds the key, on the replicas' nodes.",
        is_shown=False,
        pattern=f"^{_VARIABLE}$",
    )
    token_env: str | None = setting(
        None,
        "Environment variable that holds the bearer token of HTTP requests, on the replicas' nodes; needed where Serve "
        "does not listen on localhost only.",
        is_shown=False,
        pattern=f"^{_VARIABLE}$",
    )
    max_body_bytes: int = setting(512 * 1024, "The longest body of an HTTP request, in bytes.", ge=1024, le=64 * 1024**2)
    requests_per_minute: float | None = setting(6000.0, "HTTP requests a minute of one client address; null for no limit.", gt=0)
    request_burst: int = setting(200, "HTTP requests that one client address may make at once.", ge=1)
    max_requests_in_progress: int = setting(
        16, "HTTP requests that each ingress replica works on at once, rank requests apart; others are refused with 503.", ge=1
    )
    max_ranks_in_progress: int = setting(
        16, "Rank requests that each ingress replica works on at once; others are refused with 503.", ge=1
    )
    tools: DeploymentOptions = branch(DeploymentOptions, "Backbone and attribute tools.")
    rank: DeploymentOptions = branch(DeploymentOptions, "The rank tool.")
    ingress: IngressOptions = branch(IngressOptions, "The HTTP ingress.")
    overrides: dict[str, DeploymentOptions] = setting(
        {}, "Options by tool name (`backbone` or an attribute) in place of `tools`."
    )

    @model_validator(mode="after")
    def _llm_pair(self) -> Self:
        if self.llm_url is not None and not self.llm_model:
            raise ConfigError("llm_url needs llm_model")
        return self

    @model_validator(mode="after")
    def _gpus(self) -> Self:
        if self.device.startswith("cuda") and any(o.num_gpus == 0 for o in (self.tools, *self.overrides.values())):
            # Ray hides every GPU from a replica that reserves none.
            raise ConfigError(f"device {self.device} needs num_gpus above 0 in `tools` and in every override, as 0.2")
        return self

    def door_rules(self) -> dict[str, Any]:
        """The bounds of the HTTP door, without its token."""
        return {
            "max_body_bytes": self.max_body_bytes,
            "requests_per_minute": self.requests_per_minute,
            "burst": self.request_burst,
            "max_in_progress": self.max_requests_in_progress,
            "max_ranks_in_progress": self.max_ranks_in_progress,
        }

    def options_for(self, member: str) -> DeploymentOptions:
        """The options of one tool."""
        return self.overrides.get(member, self.tools)


class AppConfig(AppOptions):
    """Arguments of `build_app`; on the command line of `serve run` as `dataset=… recommenders=…`."""

    dataset: str = setting(REQUIRED, "The data set's folder, as `toolrec data prepare` writes it.")
    recommenders: str = setting(REQUIRED, "The recommenders' folder, as `toolrec train` writes it.")
    attributes: tuple[str, ...] | None = setting(None, "Attribute tools to deploy, comma separated.", none_word="all")
    is_routed: bool = setting(True, "Whether HTTP reaches the application at all; a run's own tools need none.")
