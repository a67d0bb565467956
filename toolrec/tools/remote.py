"""Retrieval through the deployments of a Ray Serve application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ray.exceptions import RayActorError

from toolrec.columns import PLAIN_BACKBONE
from toolrec.errors import ConfigError, ToolError
from toolrec.records import RankedItem
from toolrec.util.coalesce import Coalescer, at_once

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

# Serve takes a second to import, and a run whose tools are local never calls it: it is loaded where it is used.

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

LOST_WAITS_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
"""Seconds before a lost call is made again, each in turn: two minutes, in which Serve brings up another replica."""

ToolList = tuple[list[int], list[float]]
"""A list as it travels: item indexes, best first, and their scores."""

ListRequest = tuple[list[int], int]
"""What one list is asked for with: a history of item indexes, oldest first, and K."""

BACKBONE_DEPLOYMENT = "backbone"

MESSAGE_LISTS = 32
"""Lists that are asked of a deployment in one message at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTools:
    """A Serve application's tools: `deployments` gives each attribute's deployment (`none` for the backbone)."""

    app_name: str
    deployments: Mapping[str, str]
    dataset_checksum: str
    recommenders_checksum: str


def describe_application(app_name: str) -> ServedTools:
    """Asks a running application what it serves.

    Raises:
        ConfigError: no application of that name runs, or it is not one of ours.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        handle = serve.get_deployment_handle(BACKBONE_DEPLOYMENT, app_name)
        said: dict[str, Any] = handle.describe.remote().result(timeout_s=60)
    except (RayServeException, KeyError, TimeoutError) as error:
        raise ConfigError(
            "no tools are served under this application name",
            value=app_name,
            hint="see `serve status`; start them with `serve run toolrec.serving.app:build_app dataset=… recommenders=…`",
        ) from error
    return ServedTools(
        app_name=app_name,
        deployments=said["deployments"],
        dataset_checksum=said["dataset_checksum"],
        recommenders_checksum=said["recommenders_checksum"],
    )


class ServeRetriever:
    """Calls one deployment for each attribute, by handle; what users ask of it at the same time travels together.

    Args:
        gather_s: gives the seconds that a request may wait for others to travel with.
    """

    def __init__(self, tools: ServedTools, *, mask_seen: bool, gather_s: Callable[[], float] = at_once) -> None:
        from ray import serve

        self.attributes = tuple(name for name in tools.deployments if name != PLAIN_BACKBONE)
        self._mask_seen = mask_seen
        self._lists = {
            attribute: Coalescer(
                self._asker(serve.get_deployment_handle(deployment, tools.app_name)), max_batch=MESSAGE_LISTS, gather_s=gather_s
            )
            for attribute, deployment in tools.deployments.items()
        }

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        """The k best items by the attribute's recommender; `none` is the plain backbone.

        Raises:
            ToolError: no tool serves this attribute.
        """
        ask = self._lists.get(attribute)
        if ask is None:
            raise ToolError("no retrieval tool for this attribute", value=attribute, allowed=tuple(self._lists))
        indexes, scores = await ask((list(history), k))
        return [RankedItem(item_index=i, score=s) for i, s in zip(indexes, scores, strict=True)]

    def _asker(self, handle: DeploymentHandle) -> Callable[[Sequence[ListRequest]], Awaitable[list[ToolList]]]:
        async def ask(requests: Sequence[ListRequest]) -> list[ToolList]:
            histories, ks = zip(*requests, strict=True)
            # The same call gives the same lists: asked again here, a dead replica costs the users no LLM call and no attempt.
            lists: list[ToolList] = await patiently(lambda: handle.retrieve_many.remote(histories, ks, self._mask_seen))
            return lists

        return ask


def is_lost_tool(error: BaseException) -> bool:
    """Whether a call's replica died under it, or Serve has none for it at the moment."""
    from ray.serve.exceptions import RayServeException

    return isinstance(error, (RayActorError, RayServeException))


async def patiently(ask: Callable[[], Awaitable[Answer]], *, waits_s: Sequence[float] = LOST_WAITS_S) -> Answer:
    """The answer of `ask`, which is asked again when its replica was lost.

    Raises:
        RayActorError: the replica was lost every time, the last time included.
        RayServeException: likewise, Serve had none.
    """
    for wait_s in waits_s:
        try:
            return await ask()
        except Exception as error:
            if not is_lost_tool(error):
                raise
            log.warning("a tool's replica was lost (%s); asked again in %g s", type(error).__name__, wait_s)
        await asyncio.sleep(wait_s)
    return await ask()
