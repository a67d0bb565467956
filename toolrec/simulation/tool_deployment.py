"""Where the tools of a run come from: an application deployed for it, one that runs already, or none."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve import RunTarget
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.schema import ApplicationStatus, DeploymentStatus

from toolrec.data import Dataset
from toolrec.errors import ConfigError, RunStoppedError, ToolRecError
from toolrec.serving.app import build_app
from toolrec.serving.config import AppConfig
from toolrec.simulation.actor_pool import TELL_AFTER_S, TELL_INTERVAL_S, free_resources
from toolrec.simulation.actors import LocalTools
from toolrec.simulation.config import ToolsSettings
from toolrec.tools.remote import ServedTools, describe_application
from toolrec.util.progress import stage

BUILDER = "toolrec.serving.app:build_app"
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Serve's logging: a line for every tool call would be most of what a run does."""

POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsRequest:
    """What a run asks for.

    Args:
        tools: where they come from, and which there are.
        dataset: data set folder, absolute.
        recommenders: recommenders' folder, absolute.
        dataset_checksum: what an attached application must serve.
        recommenders_checksum: likewise.
        app_name: name of an application deployed for this run; one left over from a killed driver is replaced.
        resource_timeout_s: seconds for which replicas may wait for CPUs and GPUs.
    """

    tools: ToolsSettings
    dataset: str
    recommenders: str
    dataset_checksum: str
    recommenders_checksum: str
    app_name: str
    resource_timeout_s: float = 600.0


@contextlib.contextmanager
def tools_for(request: ToolsRequest, *, on_own_ray: bool) -> Iterator[ServedTools | LocalTools]:
    """The run's tools for as long as the block runs; with a Ray of our own they end with it.

    Raises:
        ConfigError: the application cannot be found or serves something else.
        ToolRecError: it cannot be deployed.
    """
    if request.tools.mode == "local":
        yield LocalTools(dataset=request.dataset, recommenders=request.recommenders, attributes=request.tools.attributes)
    elif request.tools.mode == "deploy":
        with _deployed(request, on_own_ray=on_own_ray) as app_name:
            yield _checked(request, describe_application(app_name))
    else:
        yield _checked(request, describe_application(request.tools.mode.removeprefix("attach:")))


def application_config(request: ToolsRequest) -> AppConfig:
    """The arguments of the application's builder."""
    return request.tools.deployment.extended(
        AppConfig,
        dataset=request.dataset,
        recommenders=request.recommenders,
        attributes=request.tools.attributes,
        is_routed=request.tools.keep,
    )


def chosen_attributes(chosen: Sequence[str] | None, dataset: Dataset, recommenders: Mapping[str, Any]) -> tuple[str, ...]:
    """The attributes that there are retrieval tools for, without `none`.

    Args:
        chosen: what was asked for; None for all that were trained.
        dataset: whose pool has the attributes.
        recommenders: their folder's manifest.

    Raises:
        ConfigError: one that was asked for was not trained.
    """
    trained = [member["name"] for member in recommenders["members"] if member["name"] in dataset.pool.attributes]
    for name in chosen or ():
        if name not in trained:
            raise ConfigError("no recommender was trained for this attribute", value=name, allowed=trained)
    return tuple(trained if chosen is None else chosen)


@contextlib.contextmanager
def _deployed(request: ToolsRequest, *, on_own_ray: bool) -> Iterator[str]:
    application = build_app(application_config(request))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    was_running = _serve_runs()
    # Simulations call the tools by handle: no HTTP proxy is started for them, and no port is taken.
    location = "HeadOnly" if request.tools.keep else "Disabled"
    serve.start(proxy_location=location, logging_config=QUIET)
    try:
        route = f"/{request.app_name}" if request.tools.keep else None
        target = RunTarget(target=application, name=request.app_name, route_prefix=route, logging_config=QUIET)
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        await_running(request.app_name, request.resource_timeout_s)
        yield request.app_name
    finally:  # also of a deployment that was broken off half way
        if not request.tools.keep and not on_own_ray:
            serve.delete(request.app_name)
            # A Serve without HTTP is of no use to whoever comes next.
            if not was_running and not serve.status().applications:
                serve.shutdown()


def await_running(app_name: str, timeout_s: float) -> None:
    """Waits until all replicas of an application are up; says what those that are not are waiting for.

    Raises:
        ToolRecError: replicas cannot be made; the message has the first reason.
        RunStoppedError: there is no place for a replica in time.
    """
    began_s = time.monotonic()
    told_s = began_s + TELL_AFTER_S - TELL_INTERVAL_S
    first_reason: str | None = None
    while True:
        application = serve.status().applications.get(app_name)
        deployments = {} if application is None else application.deployments
        if application is not None and application.status == ApplicationStatus.RUNNING:
            return
        if first_reason is None and (first_reason := failure_reason(deployments)) is not None:
            stage(f"tools: a replica of {first_reason}; Serve tries again")  # it may have been its node's end
        if application is not None and application.status == ApplicationStatus.DEPLOY_FAILED:
            reason = first_reason or last_line(application.message)
            raise ToolRecError(f"the tools could not be deployed: {reason}", hint="the whole of it is in the replicas' logs")
        waited_s = time.monotonic() - began_s
        if waited_s > timeout_s:
            raise RunStoppedError(
                f"the tools did not start within {timeout_s:.0f} s: {waiting_for(deployments)}, {free_resources()}",
                hint="free some CPUs or add a node, and run again with --resume; --resource-timeout-s waits longer",
            )
        if time.monotonic() - told_s > TELL_INTERVAL_S:
            told_s = time.monotonic()
            left_s = timeout_s - waited_s
            stage(f"tools: {waiting_for(deployments)}, {free_resources()}; waiting for {left_s:.0f} s more at most")
        time.sleep(POLL_S)


def failure_reason(deployments: Mapping[str, Any]) -> str | None:
    """The deployment with a replica that failed, and why; None as long as none has."""
    for name, deployment in deployments.items():
        if "failed to start" in deployment.message:
            return f"{name} failed to start: {last_line(deployment.message)}"
    return None


def last_line(message: str) -> str:
    """What a message with a traceback comes to: the line with the error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (errors[-1] if errors else lines[-1] if lines else "no reason given")[:500]


def waiting_for(deployments: Mapping[str, Any]) -> str:
    """Which deployments are not up, and what Serve says of the resources that they wait for."""
    waiting = [name for name, deployment in deployments.items() if deployment.status != DeploymentStatus.HEALTHY]
    needs = (re.search(r"Resources required for each replica: (\{.*?\})", d.message) for d in deployments.values())
    need = next((f" (each needs {found[1]})" for found in needs if found), "")
    return f"no replica yet of {', '.join(waiting) or 'any deployment'}{need}"


def _serve_runs() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _checked(request: ToolsRequest, tools: ServedTools) -> ServedTools:
    for what, served, wanted in (
        ("data set", tools.dataset_checksum, request.dataset_checksum),
        ("recommenders", tools.recommenders_checksum, request.recommenders_checksum),
    ):
        if served != wanted:
            raise ConfigError(f"the application serves another {what} than this run's", value=served[:16], allowed=wanted[:16])
    if request.tools.attributes is None:
        return tools
    missing = [name for name in request.tools.attributes if name not in tools.deployments]
    if missing:
        raise ConfigError("the application does not serve this attribute", value=missing[0], allowed=list(tools.deployments))
    kept = {name: deployment for name, deployment in tools.deployments.items() if name in ("none", *request.tools.attributes)}
    return ServedTools(
        app_name=tools.app_name,
        deployments=kept,
        dataset_checksum=tools.dataset_checksum,
        recommenders_checksum=tools.recommenders_checksum,
    )
