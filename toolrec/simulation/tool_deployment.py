"""Where the tools of a run come from: an application deployed for it, one that runs already, or none."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from toolrec.errors import ConfigError, ToolRecError
from toolrec.parts import load_part
from toolrec.simulation.actors import LocalTools
from toolrec.tools.remote import ServedTools, describe_application

BUILDER = "serve.app:build_app"
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Serve's logging: a line for every tool call would be most of what a run does."""

MODES = "deploy, attach:APP or local"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsRequest:
    """What a run asks for.

    Args:
        mode: `deploy`, `attach:APP` or `local`.
        dataset: data set folder, absolute.
        recommenders: recommenders' folder, absolute.
        dataset_checksum: what an attached application must serve.
        recommenders_checksum: likewise.
        app_name: name of an application deployed for this run; one left over from a killed driver is replaced.
        attributes: attribute tools; None for all.
        options: further arguments of the application's builder.
        keep: leave a deployed application up at the end.
    """

    mode: str
    dataset: str
    recommenders: str
    dataset_checksum: str
    recommenders_checksum: str
    app_name: str
    attributes: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("deploy", "local") and not self.mode.startswith("attach:"):
            raise ConfigError("unknown place for the tools", value=self.mode, allowed=MODES)


@contextlib.contextmanager
def tools_for(request: ToolsRequest, *, on_own_ray: bool) -> Iterator[ServedTools | LocalTools]:
    """The run's tools for as long as the block runs; with a Ray of our own they end with it.

    Raises:
        ConfigError: the application cannot be found or serves something else.
        ToolRecError: it cannot be deployed.
    """
    if request.mode == "local":
        yield LocalTools(dataset=request.dataset, recommenders=request.recommenders, attributes=request.attributes)
    elif request.mode == "deploy":
        with _deployed(request, on_own_ray=on_own_ray) as app_name:
            yield _checked(request, describe_application(app_name))
    else:
        yield _checked(request, describe_application(request.mode.removeprefix("attach:")))


def application_config(request: ToolsRequest) -> Any:
    """The arguments of the application's builder.

    Raises:
        ConfigError: an option is unknown or out of range, or names what the run itself decides.
    """
    _, config_type = _load_builder()
    decided = {
        "dataset": request.dataset,
        "recommenders": request.recommenders,
        "attributes": None if request.attributes is None else list(request.attributes),
        "is_routed": request.keep,
    }
    for name in decided.keys() & request.options.keys():
        raise ConfigError("this option of the tools is the run's own", value=name, hint="give it as a flag of evaluate")
    try:
        return config_type.model_validate({**request.options, **decided})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the tools' options are wrong at {place or 'the top'}: {first['msg']}") from None


@contextlib.contextmanager
def _deployed(request: ToolsRequest, *, on_own_ray: bool) -> Iterator[str]:
    builder, _ = _load_builder()
    application = builder(application_config(request))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    was_running = _serve_runs()
    # Simulations call the tools by handle: no HTTP proxy is started for them, and no port is taken.
    location = "HeadOnly" if request.keep else "Disabled"
    serve.start(proxy_location=location, logging_config=QUIET)
    try:
        route = f"/{request.app_name}" if request.keep else None
        try:
            serve.run(application, name=request.app_name, route_prefix=route, logging_config=QUIET)
        except RuntimeError as error:
            raise ToolRecError(f"the tools could not be deployed ({error})", hint="see the replicas' log") from error
        yield request.app_name
    finally:  # also of a deployment that was broken off half way
        if not request.keep and not on_own_ray:
            serve.delete(request.app_name)
            # A Serve without HTTP is of no use to whoever comes next.
            if not was_running and not serve.status().applications:
                serve.shutdown()


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
    if request.attributes is None:
        return tools
    missing = [name for name in request.attributes if name not in tools.deployments]
    if missing:
        raise ConfigError("the application does not serve this attribute", value=missing[0], allowed=list(tools.deployments))
    kept = {name: deployment for name, deployment in tools.deployments.items() if name in ("none", *request.attributes)}
    return ServedTools(
        app_name=tools.app_name,
        deployments=kept,
        dataset_checksum=tools.dataset_checksum,
        recommenders_checksum=tools.recommenders_checksum,
    )


def _load_builder() -> tuple[Any, Any]:
    """The application's builder by import path from the current folder: the library imports no application folder."""
    try:
        builder = load_part("application", BUILDER)
    except ConfigError as error:
        raise ConfigError(
            "the Serve application is not in the current folder",
            value=str(Path.cwd()),
            hint="run from the checkout (its `serve/` folder), or use --tools local",
        ) from error
    return builder, importlib.import_module(builder.__module__).AppConfig
