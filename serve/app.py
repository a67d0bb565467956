"""`serve run serve.app:build_app dataset=… recommenders=…`, and what `toolrec evaluate` deploys."""

# No `from __future__ import annotations`: Serve reads the type of the builder's argument to turn `dataset=…` into a config.

import re
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from serve.config import AppConfig
from toolrec.columns import PLAIN_BACKBONE
from toolrec.errors import ConfigError
from toolrec.tools.remote import BACKBONE_DEPLOYMENT


def build_app(config: AppConfig) -> Application:
    """The application: a deployment for the backbone, for each attribute tool and for rank, behind an HTTP ingress.

    Raises:
        InputError: the data set or the recommenders cannot be used, or an attribute is unknown.
    """
    from serve.deployments import RankReplica, RetrievalReplica
    from serve.ingress import Ingress
    from toolrec.data import load_dataset
    from toolrec.recommenders import recommenders_manifest

    # Replicas may run elsewhere than here, in another working folder: paths travel absolute.
    paths = {"dataset": str(Path(config.dataset).absolute()), "recommenders": str(Path(config.recommenders).absolute())}
    dataset = load_dataset(Path(paths["dataset"]))
    manifest = recommenders_manifest(Path(paths["recommenders"]))
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
        slug = re.sub(r"[^a-z0-9]+", "-", attribute.lower()).strip("-")[:40]
        names[attribute] = f"attribute-{number}-{slug}".rstrip("-")
    return names


def _chosen_attributes(config: AppConfig, manifest: dict[str, Any]) -> list[str]:
    trained = [member["name"] for member in manifest["members"] if member["name"] not in (BACKBONE_DEPLOYMENT, "popularity")]
    for name in [*(config.attributes or []), *config.overrides]:
        if name not in trained and not (name in config.overrides and name == BACKBONE_DEPLOYMENT):
            raise ConfigError("no recommender was trained for this attribute", value=name, allowed=trained)
    return trained if config.attributes is None else list(config.attributes)
