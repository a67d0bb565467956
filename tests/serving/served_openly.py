"""Deploys the application on a Ray of its own whose Serve is set to listen on every interface; for `test_application.py`.

No proxy is started, so that nothing listens: the replicas only learn that it would. Prints what became of each attempt.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import ray
from ray import serve

from toolrec.connect import start_local
from toolrec.serving.app import build_app
from toolrec.serving.config import AppConfig
from toolrec.simulation.tool_deployment import QUIET


def main(dataset: str, recommenders: str) -> None:
    start_local(2, object_store_bytes=128 * 1024**2)
    serve.start(proxy_location="Disabled", http_options={"host": "0.0.0.0"}, logging_config=QUIET)
    tried: dict[str, dict[str, Any]] = {
        "open": {},
        "token": {"token_env": "TOOLREC_TEST_TOKEN"},
        "unrouted": {"is_routed": False},
    }
    targets = [
        serve.RunTarget(
            build_app(AppConfig(dataset=dataset, recommenders=recommenders, attributes=[], **options)),
            name=name,
            route_prefix=f"/{name}",
            logging_config=QUIET,
        )
        for name, options in tried.items()
    ]
    serve.run_many(targets, wait_for_applications_running=False)
    for name, options in tried.items():
        while (status := serve.status().applications[name]).status not in ("RUNNING", "DEPLOY_FAILED"):
            time.sleep(0.2)
        if status.status == "RUNNING":
            print("started:", options, flush=True)
        else:
            print("refused:", options, status.deployments["ingress"].message, flush=True)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
