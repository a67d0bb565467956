"""`serve/config.yaml`, held against Ray Serve's own schema and our application's arguments."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema
from support import ROOT

from toolrec.serving.config import AppConfig


def test_the_config_file_is_one_that_serve_deploys(demo_folder: Path, demo_recommenders: Path):
    schema = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "serve" / "config.yaml").read_text(encoding="utf-8")))
    assert schema.http_options.host == "127.0.0.1"
    [application] = schema.applications
    config = AppConfig.model_validate(application.args)
    assert config.tools.serve_options()["autoscaling_config"]["max_replicas"] > 1
    args = {**application.args, "dataset": str(demo_folder), "recommenders": str(demo_recommenders)}
    built = call_user_app_builder_with_args_if_necessary(import_attr(application.import_path), args)
    assert built._bound_deployment.name == "ingress"
