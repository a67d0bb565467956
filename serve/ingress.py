"""The HTTP door: item ids in, item ids out; OpenAPI at `/docs`."""

# Annotations stay objects here (no `from __future__ import annotations`): Serve rebuilds the routes in its replicas, where
# FastAPI cannot look up a name written as text, and would read the body from the query string.

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from toolrec import __version__
from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import load_dataset
from toolrec.errors import LLMError, ToolError
from toolrec.recommenders.base import reciprocal_rank_fusion
from toolrec.recommenders.fusion import LIST_LENGTH as FUSED_LENGTH
from toolrec.records import Candidate, ToolCall
from toolrec.tools.base import MAX_K, ToolContext
from toolrec.tools.remote import ToolList

MAX_HISTORY = 5_000
"""The longest history that a request may carry."""

ItemIdText = Annotated[str, Field(min_length=1, max_length=512)]

api = FastAPI(
    title="toolrec attribute tools",
    version=__version__,
    description="Retrieval by a sequential recommender and its attribute encoders, and ranking by an LLM.",
)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    history: list[ItemIdText] = Field(min_length=1, max_length=MAX_HISTORY, description="item ids, oldest first")
    k: int = Field(20, ge=1, le=MAX_K, description="length of the list")
    mask_seen: bool = Field(True, description="leave the history's items out of the list")


class RetrieveRequest(_Request):
    """A call of one retrieval tool."""

    attribute: str = Field(PLAIN_BACKBONE, max_length=200, description="an attribute, or `none` for the plain backbone")


class RecommendRequest(_Request):
    """A list without an LLM: the reciprocal rank fusion of all retrieval tools."""


class RankRequest(BaseModel):
    """A call of the rank tool."""

    model_config = ConfigDict(extra="forbid")

    history: list[ItemIdText] = Field(min_length=1, max_length=MAX_HISTORY, description="item ids, oldest first")
    candidates: list[ItemIdText] = Field(min_length=1, max_length=500, description="item ids to order")
    attribute: str = Field(min_length=1, max_length=200, description="what to order by; any aspect that the LLM knows of")
    k: int = Field(10, ge=1, le=MAX_K, description="length of the list")


class ListedItem(BaseModel):
    """One entry of a list; `position` counts from 1."""

    position: int
    item_id: str
    title: str
    score: float


class ListReply(BaseModel):
    """A list, best first, with the tool that made it."""

    tool: str
    items: list[ListedItem]
    dataset_checksum: str
    recommenders_checksum: str


@api.exception_handler(ToolError)
async def _tool_error(_: Request, error: ToolError) -> JSONResponse:
    return JSONResponse(status_code=422, content={"detail": str(error)})


@api.exception_handler(LLMError)
async def _llm_error(_: Request, error: LLMError) -> JSONResponse:
    return JSONResponse(status_code=502, content={"detail": str(error)})


@serve.ingress(api)
class Ingress:
    """Translates item ids and calls the tools' deployments."""

    def __init__(
        self, dataset: str, *, tools: dict[str, DeploymentHandle], rank: DeploymentHandle, description: dict[str, Any]
    ) -> None:
        self._dataset = load_dataset(Path(dataset))
        self._pool = self._dataset.pool
        self._tools, self._rank, self._description = tools, rank, description

    @api.post("/v1/retrieve", response_model=ListReply)
    async def retrieve(self, request: RetrieveRequest) -> ListReply:
        """The k best items by one attribute's retrieval tool."""
        handle = self._tools.get(request.attribute)
        if handle is None:
            raise HTTPException(422, f"unknown attribute: {request.attribute}; known: {', '.join(self._tools)}")
        found = await handle.retrieve.remote(self._indexes(request.history), request.k, request.mask_seen)
        return self._reply(f"Retrieve[{request.attribute}]", found)

    @api.post("/v1/recommend", response_model=ListReply)
    async def recommend(self, request: RecommendRequest) -> ListReply:
        """The k best items by the reciprocal rank fusion of all retrieval tools; no LLM takes part."""
        history = self._indexes(request.history)
        lists = await asyncio.gather(*(h.retrieve.remote(history, FUSED_LENGTH, request.mask_seen) for h in self._tools.values()))
        fused = reciprocal_rank_fusion([indexes for indexes, _ in lists])[: request.k]
        return self._reply("fusion", ([item.item_index for item in fused], [item.score for item in fused]))

    @api.post("/v1/rank", response_model=ListReply)
    async def rank(self, request: RankRequest) -> ListReply:
        """The candidates ordered by an LLM, by any attribute that it knows of."""
        mark = "Retrieve[none]"
        candidates = tuple(
            Candidate(item_index=index, mark=mark, round=1, position=position, score=0.0)
            for position, index in enumerate(self._indexes(request.candidates), start=1)
        )
        context = ToolContext(
            user_index=0,
            history=tuple(self._indexes(request.history)),
            ratings=None,
            candidates=candidates,
            previous_calls=(),
            round=1,
        )
        call = ToolCall(name="rank", attribute=request.attribute, k=request.k)
        try:
            ranked = await self._rank.rank.remote(call, context)
        except RayTaskError as error:
            if isinstance(error.cause, ToolError | LLMError):
                raise error.cause from None
            raise
        return self._reply(call.mark, ranked)

    @api.get("/v1/attributes")
    async def attributes(self) -> dict[str, Any]:
        """The attributes that retrieval tools serve, with kind and number of values."""
        described = [
            {"name": spec.name, "kind": spec.kind, "num_values": spec.num_values, "description": spec.description}
            for spec in self._pool.attributes.values()
            if spec.name in self._tools
        ]
        return {"backbone": PLAIN_BACKBONE, "attributes": described}

    @api.get("/v1/items/{item_id:path}")
    async def item(self, item_id: str) -> dict[str, Any]:
        """An item's title and attributes."""
        index = self._pool.index_of(item_id)
        if index is None:
            raise HTTPException(404, f"no item in the pool has this id: {item_id[:100]}")
        return {"item_id": item_id, "title": self._pool.titles[index], "attributes": dict(self._pool.fields(index))}

    @api.get("/healthz")
    async def healthz(self) -> dict[str, Any]:
        """Whether the door is open, and what it serves."""
        return {"status": "ok", "dataset": self._dataset.name, "num_items": self._dataset.num_items, **self._description}

    def _indexes(self, item_ids: list[str]) -> list[int]:
        indexes = []
        for item_id in item_ids:
            index = self._pool.index_of(item_id)
            if index is None:
                raise HTTPException(422, f"no item in the pool has this id: {item_id[:100]}")
            indexes.append(index)
        return indexes

    def _reply(self, tool: str, found: ToolList) -> ListReply:
        items = [
            ListedItem(position=position, item_id=self._pool.item_ids[i], title=self._pool.titles[i], score=score)
            for position, (i, score) in enumerate(zip(*found, strict=True), start=1)
        ]
        return ListReply(
            tool=tool,
            items=items,
            dataset_checksum=self._description["dataset_checksum"],
            recommenders_checksum=self._description["recommenders_checksum"],
        )
