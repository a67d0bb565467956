"""Deploys the application on a Ray of its own whose Serve is set to listen on every interface; for `test_application.py`.

No proxy is started, so that nothing listens: the replicas only learn that it would. Prints what became of each attempt.
"""

from __future__ import annotations

import sys

import ray
from ray import serve

from serve.app import build_app
from serve.config import AppConfig
from toolrec.connect import start_local
from toolrec.simulation.tool_deployment import QUIET


def main(dataset: str, recommenders: str) -> None:
    start_local(2, object_store_bytes=128 * 1024**2)
    serve.start(proxy_location="Disabled", http_options={"host": "0.0.0.0"}, logging_config=QUIET)
    for options in ({}, {"token_env": "TOOLREC_TEST_TOKEN"}, {"is_routed": False}):
        config = AppConfig(dataset=dataset, recommenders=recommenders, attributes=[], **options)
        try:
            serve.run(build_app(config), name="open", logging_config=QUIET)
            print("started:", options, flush=True)
        except RuntimeError:
            message = serve.status().applications["open"].deployments["ingress"].message
            print("refused:", options, message, flush=True)
        serve.delete("open")
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
