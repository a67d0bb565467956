"""`serve run toolrec.serving.app:build_app dataset=… recommenders=…`, and what `toolrec evaluate` deploys."""

# No `from __future__ import annotations`: Serve reads the type of the builder's argument to turn `dataset=…` into a config.

import os
import sys
from typing import Any

import click
from ray import serve
from ray.serve import Application

from toolrec.columns import PLAIN_BACKBONE
from toolrec.errors import ConfigError, InputError
from toolrec.serving.config import AppConfig
from toolrec.serving.door import read_token
from toolrec.tools.remote import BACKBONE_DEPLOYMENT
from toolrec.util.slug import slug
from toolrec.util.urls import place_of


def build_app(config: AppConfig) -> Application:
    """The application: a deployment for the backbone, for each attribute tool and for rank, behind an HTTP ingress.

    Raises:
        InputError: the data set or the recommenders cannot be used, an attribute is unknown, or the token is too short.
        SystemExit: likewise, where `serve run` builds it: that would print the whole traceback of any other error.
    """
    try:
        return _build(config)
    except InputError as error:
        if _is_built_by_serve():
            raise SystemExit(f"Error: {error}") from None
        raise


def _is_built_by_serve() -> bool:
    """Whether the command line of Ray Serve is what runs in this process."""
    scripts, context = sys.modules.get("ray.serve.scripts"), click.get_current_context(silent=True)
    return scripts is not None and context is not None and context.find_root().command is scripts.cli


def _build(config: AppConfig) -> Application:
    from toolrec.data import load_dataset
    from toolrec.recommenders import recommenders_manifest
    from toolrec.serving.deployments import RankReplica, RetrievalReplica
    from toolrec.serving.ingress import Ingress

    # Replicas may run elsewhere than here, in another working folder: paths travel absolute.
    given_places = {"dataset": config.dataset, "recommenders": config.recommenders}
    paths = {name: str(place_of(given).absolute()) for name, given in given_places.items()}
    if config.token_env is not None and os.environ.get(config.token_env):
        read_token(config.token_env)  # replicas elsewhere may have another one; a wrong one here is told at once
    dataset = load_dataset(paths["dataset"])
    manifest = recommenders_manifest(place_of(paths["recommenders"]))
    attributes = _chosen_attributes(config, manifest)
    names = deployment_names(attributes)
    description = {
        "deployments": names,
        "dataset_checksum": dataset.checksum,
        "recommenders_checksum": manifest["checksum"],
    }

    def retrieval(attribute: str) -> Application:
        member = BACKBONE_DEPLOYMENT if attribute == PLAIN_BACKBONE else attribute
        options = config.options_for(member)
        deployment = serve.deployment(RetrievalReplica).options(name=names[attribute], **options.serve_options())
        return deployment.bind(
            paths["dataset"],
            paths["recommenders"],
            member,
            device=config.device,
            num_threads=options.num_threads,
            max_batch_size=options.max_batch_size,
            batch_wait_timeout_s=options.batch_wait_timeout_s,
            description=description,
        )

    rank = (
        serve.deployment(RankReplica)
        .options(name="rank", **config.rank.serve_options())
        .bind(paths["dataset"], llm_url=config.llm_url, llm_model=config.llm_model, llm_key_env=config.llm_key_env)
    )
    tools = {attribute: retrieval(attribute) for attribute in names}
    ingress = serve.deployment(Ingress).options(name="ingress", **config.ingress.serve_options())
    return ingress.bind(
        paths["dataset"],
        tools=tools,
        rank=rank,
        description=description,
        door=config.door_rules(),
        token_env=config.token_env,
        is_routed=config.is_routed,
    )


def deployment_names(attributes: list[str]) -> dict[str, str]:
    """A deployment name for each attribute, `none` (the backbone) first; names are safe in URLs and log lines."""
    names = {PLAIN_BACKBONE: BACKBONE_DEPLOYMENT}
    for number, attribute in enumerate(attributes, start=1):
        names[attribute] = f"attribute-{number}-{slug(attribute)}".rstrip("-")
    return names


def _chosen_attributes(config: AppConfig, manifest: dict[str, Any]) -> list[str]:
    trained = [member["name"] for member in manifest["members"] if member["name"] not in (BACKBONE_DEPLOYMENT, "popularity")]
    for name in [*(config.attributes or []), *config.overrides]:
        if name not in trained and not (name in config.overrides and name == BACKBONE_DEPLOYMENT):
            raise ConfigError("no recommender was trained for this attribute", value=name, allowed=trained)
    return trained if config.attributes is None else list(config.attributes)
