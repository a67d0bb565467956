"""The embedded endpoint on each node of a run, as an actor. Apart from the others: it loads neither torch nor openai."""

from __future__ import annotations

from typing import Any

import ray

from toolrec.connect import free_port
from toolrec.llm.embedded import EmbeddedOptions, run_in_thread


class EmbeddedEndpoint:
    """The embedded rules behind HTTP on this node's loopback address."""

    def __init__(self, port: int, options: EmbeddedOptions) -> None:
        self._server = run_in_thread(options, port=port)

    async def base_url(self) -> str:
        """Where it answers, with `/v1`."""
        return self._server.base_url


EmbeddedEndpointActor: Any = ray.remote(num_cpus=0.1, max_restarts=-1, max_task_retries=-1)(EmbeddedEndpoint)
free_port_task: Any = ray.remote(num_cpus=0)(free_port)
