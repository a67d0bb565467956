"""The HTTP door: item ids in, item ids out; OpenAPI at `/openapi.json`, Swagger UI at `/docs`."""

# Annotations stay objects here (no `from __future__ import annotations`): FastAPI cannot look up a name written as text
# in a function that makes routes, and would read the body from the query string.

import asyncio
import functools
import importlib.resources
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import ray
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.exceptions import RayServeException
from starlette.exceptions import HTTPException as StarletteHTTPException

from toolrec import __version__
from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Dataset, load_dataset
from toolrec.errors import LLMError, ToolError
from toolrec.grammar import clean
from toolrec.recommenders.fusion.rrf import LIST_LENGTH as FUSED_LENGTH
from toolrec.recommenders.fusion.rrf import reciprocal_rank_fusion
from toolrec.records import Candidate, ToolCall
from toolrec.serving.door import DOCS_PATH, OPENAPI_PATH, Door, DoorRules, check_address, read_token
from toolrec.serving.item_search import ItemSearch
from toolrec.tools.base import MAX_K, ToolContext
from toolrec.tools.calls import clean_attribute
from toolrec.tools.remote import ToolList

MAX_HISTORY = 5_000
"""The longest history that a request may carry."""
MAX_CANDIDATES = 500
MAX_ITEMS = 100
"""Items of one answer of the search."""
MAX_FIELDS = 20
"""The most fields that a request is looked at with: each unknown one is a complaint of its own, and costs as much."""
_SHOWN_COMPLAINTS = 5

log = logging.getLogger(__name__)

ItemIdText = Annotated[str, Field(min_length=1, max_length=512)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise PydanticCustomError("too_many_fields", f"a request has at most {MAX_FIELDS} fields")
        return value


class _Request(_Body):
    history: list[ItemIdText] = Field(min_length=1, max_length=MAX_HISTORY, description="item ids, oldest first")
    k: int = Field(20, ge=1, le=MAX_K, description="length of the list")
    mask_seen: bool = Field(True, description="leave the history's items out of the list")


class RetrieveRequest(_Request):
    """A call of one retrieval tool."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"history": ["m001", "m004"], "attribute": "genre", "k": 3}]})

    attribute: str = Field(PLAIN_BACKBONE, max_length=200, description="an attribute, or `none` for the plain backbone")


class RecommendRequest(_Request):
    """A list without an LLM: the reciprocal rank fusion of all retrieval tools."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"history": ["m001", "m004"], "k": 3}]})


class RankRequest(_Body):
    """A call of the rank tool."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"history": ["m001", "m004"], "candidates": ["m002", "m003", "m005"], "attribute": "genre", "k": 3}]
        }
    )

    history: list[ItemIdText] = Field(min_length=1, max_length=MAX_HISTORY, description="item ids, oldest first")
    candidates: list[ItemIdText] = Field(min_length=1, max_length=MAX_CANDIDATES, description="item ids to order")
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


class RankReply(ListReply):
    """A ranking; `left_out` are the candidates that the LLM did not see because its prompt had no room for them."""

    left_out: list[str]


class AttributeReply(BaseModel):
    """An attribute that a retrieval tool serves."""

    name: str
    kind: str
    num_values: int
    description: str


class AttributesReply(BaseModel):
    """The name of the plain backbone, and the attributes that retrieval tools serve."""

    backbone: str
    attributes: list[AttributeReply]


class ItemReply(BaseModel):
    """An item of the pool."""

    item_id: str
    title: str
    attributes: dict[str, list[str]]


class ItemsReply(BaseModel):
    """Items in the order of the pool; `has_more` tells whether others follow."""

    items: list[ItemReply]
    has_more: bool


class HealthReply(BaseModel):
    """What is served; without the token it is the status alone."""

    status: str
    dataset: str | None = None
    num_items: int | None = None
    dataset_checksum: str | None = None
    recommenders_checksum: str | None = None
    deployments: dict[str, str] | None = None


class ErrorReply(BaseModel):
    """Why a request was not carried out."""

    detail: str


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for OpenAPI."""
    return {status: _REFUSALS[status] for status in sorted((*_FROM_EVERY_ROUTE, *statuses))}


def _error(description: str, **more: Any) -> dict[str, Any]:
    return {"model": ErrorReply, "description": description, **more}


_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
_FROM_EVERY_ROUTE = (400, 401, 403, 408, 413, 415, 429, 500, 503)
_REFUSALS: dict[int, dict[str, Any]] = {
    400: _error("The request breaks off, or is no JSON."),
    401: _error("The application has a token, and the request does not."),
    403: _error("The application has no token, and the request comes from elsewhere than this machine."),
    404: _error("No item has this id."),
    408: _error("The body did not arrive in time."),
    413: _error("The body is too long."),
    415: _error("The body is not `application/json`."),
    422: _error("An item, attribute or field is unknown or out of bounds."),
    429: _error("Too many requests of this client, or too many wrong tokens.", headers=_RETRY_AFTER),
    500: _error("An error of the application; its log says more."),
    502: _error("The LLM endpoint cannot be used, or gave no usable list."),
    503: _error(
        "Too many requests at once, or a tool's replica is gone. Plain text where Ray Serve's own queue is full.",
        headers=_RETRY_AFTER,
        content={"text/plain": {"schema": {"type": "string"}}},
    ),
}


class _PlainResponse(JSONResponse):
    """JSON in plain ASCII: whatever a request held can be quoted."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


class Answers:
    """What the routes answer: translates item ids and calls the tools.

    Args:
        dataset: gives the pool.
        tools: by attribute, `none` for the backbone: anything whose `retrieve.remote(…)` can be awaited.
        rank: likewise with `rank.remote(attribute, k, context)`.
        description: what the application says of itself (checksums, tools).
    """

    def __init__(self, dataset: Dataset, *, tools: dict[str, Any], rank: Any, description: dict[str, Any]) -> None:
        self._dataset = dataset
        self._pool = dataset.pool
        self._search = ItemSearch(dataset.pool)
        self._tools, self._rank, self._description = tools, rank, description

    async def retrieve(self, request: RetrieveRequest) -> ListReply:
        """The k best items by one attribute's retrieval tool."""
        handle = self._tools.get(request.attribute)
        if handle is None:
            raise HTTPException(422, f"unknown attribute: {clean(request.attribute)}; known: {', '.join(self._tools)}")
        found = await handle.retrieve.remote(self._indexes(request.history), request.k, request.mask_seen)
        return self._reply(f"Retrieve[{request.attribute}]", found)

    async def recommend(self, request: RecommendRequest) -> ListReply:
        """The k best items by the reciprocal rank fusion of all retrieval tools."""
        history = self._indexes(request.history)
        lists = await asyncio.gather(*(h.retrieve.remote(history, FUSED_LENGTH, request.mask_seen) for h in self._tools.values()))
        fused = reciprocal_rank_fusion([indexes for indexes, _ in lists])[: request.k]
        return self._reply("fusion", ([item.item_index for item in fused], [item.score for item in fused]))

    async def rank(self, request: RankRequest) -> RankReply:
        """The candidates in an LLM's order."""
        attribute = clean_attribute(request.attribute) or PLAIN_BACKBONE
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
        try:
            indexes, scores, left_out = await self._rank.rank.remote(attribute, request.k, context)
        except RayTaskError as error:
            if isinstance(error.cause, ToolError | LLMError):
                raise error.cause from None
            raise
        listed = self._reply(ToolCall(name="rank", attribute=attribute).mark, (indexes, scores))
        return RankReply(**dict(listed), left_out=[self._pool.item_ids[index] for index in left_out])

    def attributes(self) -> AttributesReply:
        """The attributes that retrieval tools serve, with kind and number of values."""
        described = [
            AttributeReply(name=spec.name, kind=spec.kind, num_values=spec.num_values, description=spec.description)
            for spec in self._pool.attributes.values()
            if spec.name in self._tools
        ]
        return AttributesReply(backbone=PLAIN_BACKBONE, attributes=described)

    def item(self, item_id: str) -> ItemReply:
        """An item's title and attributes."""
        index = self._pool.index_of(item_id)
        if index is None:
            raise HTTPException(404, f"no item in the pool has this id: {clean(item_id, limit=100)}")
        return self._item(index)

    def items(self, query: str, *, limit: int, offset: int) -> ItemsReply:
        """Items whose id or title has the query in it."""
        found = list(itertools.islice(self._search.find(query), offset, offset + limit + 1))
        return ItemsReply(items=[self._item(index) for index in found[:limit]], has_more=len(found) > limit)

    def health(self) -> HealthReply:
        """What is served."""
        return HealthReply(status="ok", dataset=self._dataset.name, num_items=self._dataset.num_items, **self._description)

    def _item(self, index: int) -> ItemReply:
        attributes = {name: list(values) for name, values in self._pool.fields(index)}
        return ItemReply(item_id=self._pool.item_ids[index], title=self._pool.titles[index], attributes=attributes)

    def _indexes(self, item_ids: list[str]) -> list[int]:
        indexes = []
        for item_id in item_ids:
            index = self._pool.index_of(item_id)
            if index is None:
                raise HTTPException(422, f"no item in the pool has this id: {clean(item_id, limit=100)}")
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


def build_api(find_answers: Callable[[], Answers], find_rules: Callable[[], DoorRules]) -> FastAPI:
    """The routes behind their guard.

    Args:
        find_answers: gives what the routes answer, asked at every request.
        find_rules: gives the guard's rules, asked at the first request.
    """
    api = FastAPI(
        title="toolrec attribute tools",
        version=__version__,
        description="Retrieval by a sequential recommender and its attribute encoders, and ranking by an LLM.",
        default_response_class=_PlainResponse,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    api.add_middleware(Door, rules=find_rules)
    _add_error_handlers(api)
    _add_docs(api)
    bearer = [Depends(HTTPBearer(auto_error=False, description="The token, where the application has one (`token_env`)."))]

    @api.post("/v1/retrieve", responses=_refusals(422), dependencies=bearer)
    async def retrieve(request: RetrieveRequest) -> ListReply:
        """The k best items by one attribute's retrieval tool."""
        return await find_answers().retrieve(request)

    @api.post("/v1/recommend", responses=_refusals(422), dependencies=bearer)
    async def recommend(request: RecommendRequest) -> ListReply:
        """The k best items by the reciprocal rank fusion of all retrieval tools; no LLM takes part."""
        return await find_answers().recommend(request)

    @api.post("/v1/rank", responses=_refusals(422, 502), dependencies=bearer)
    async def rank(request: RankRequest) -> RankReply:
        """The candidates ordered by an LLM, by any attribute that it knows of."""
        return await find_answers().rank(request)

    @api.get("/v1/attributes", responses=_refusals(), dependencies=bearer)
    async def attributes() -> AttributesReply:
        """The attributes that retrieval tools serve, with kind and number of values."""
        return find_answers().attributes()

    @api.get("/v1/items", responses=_refusals(422), dependencies=bearer)
    async def items(
        query: Annotated[str, Query(max_length=200, description="part of an id or title; case does not matter")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_ITEMS, description="items at most")] = 20,
        offset: Annotated[int, Query(ge=0, le=10**9, description="found items to pass over")] = 0,
    ) -> ItemsReply:
        """Lists the pool's items, or searches them by id and title."""
        return find_answers().items(query, limit=limit, offset=offset)

    @api.get("/v1/items/{item_id:path}", responses=_refusals(404, 422), dependencies=bearer)
    async def item(item_id: str) -> ItemReply:
        """An item's title and attributes."""
        return find_answers().item(item_id)

    @api.get("/healthz", response_model_exclude_none=True, responses=_refusals(), dependencies=bearer)
    async def healthz() -> HealthReply:
        """Whether the application is up, and what it serves."""
        return find_answers().health()

    return api


def _add_docs(api: FastAPI) -> None:
    """Swagger UI with files of a package in the place of a CDN's; addresses are relative, so that any route prefix will do."""

    @api.get(DOCS_PATH, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=OPENAPI_PATH.lstrip("/"),
            title=api.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
        )

    @api.get(f"{DOCS_PATH}/{{name}}", include_in_schema=False)
    async def docs_file(name: str) -> FileResponse:
        if name not in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
            raise HTTPException(404, "Not Found")
        return FileResponse(_swagger_files() / name)


@functools.cache
def _swagger_files() -> Path:
    return Path(str(importlib.resources.files("fastapi_offline"))) / "static"


def _add_error_handlers(api: FastAPI) -> None:
    """Every error as `{"detail": reason}`."""

    def refusal(status: int, reason: str, headers: Any = None) -> JSONResponse:
        return _PlainResponse(status_code=status, content={"detail": reason}, headers=headers)

    @api.exception_handler(StarletteHTTPException)
    async def known(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return refusal(error.status_code, str(error.detail), error.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return refusal(422, _complaints(error))

    @api.exception_handler(ToolError)
    async def tool_error(_: Request, error: ToolError) -> JSONResponse:
        return refusal(422, str(error))

    @api.exception_handler(LLMError)
    async def llm_error(_: Request, error: LLMError) -> JSONResponse:
        return refusal(502, str(error))

    # What Serve itself says (no replica, a full queue) is no RayError.
    @api.exception_handler(RayError)
    @api.exception_handler(RayServeException)
    async def lost(_: Request, error: Exception) -> JSONResponse:
        log.error("a tool's replica failed: %s", error)
        return refusal(503, "a tool's replica failed; try again")

    @api.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> JSONResponse:
        return refusal(500, "an error of this application; its log says more")


def _complaints(error: RequestValidationError) -> str:
    """What is wrong with a request, without quoting it."""
    complaints = error.errors()
    shown = []
    for complaint in complaints[:_SHOWN_COMPLAINTS]:
        place = ".".join(clean(str(part), limit=60) for part in complaint["loc"] if part != "body")
        shown.append(f"{place}: {complaint['msg']}" if place else str(complaint["msg"]))
    if len(complaints) > _SHOWN_COMPLAINTS:
        shown.append(f"and {len(complaints) - _SHOWN_COMPLAINTS} more")
    return "; ".join(shown)


def _of_this_replica() -> FastAPI:
    return build_api(
        lambda: serve.get_replica_context().servable_object.answers,
        lambda: serve.get_replica_context().servable_object.rules,
    )


@serve.ingress(_of_this_replica)
class Ingress:
    """The routes in a replica.

    Args:
        dataset: the data set's folder.
        tools: the retrieval tools' handles by attribute.
        rank: the rank tool's handle.
        description: what the application says of itself.
        door: the guard's bounds (see `DoorRules`).
        token_env: the environment variable that holds the bearer token.
        is_routed: whether HTTP reaches it at all; a run's own tools are called by handle alone.

    Raises:
        ConfigError: others than this machine can reach Serve's HTTP proxies, and there is no token.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        dataset: str,
        *,
        tools: dict[str, Any],
        rank: Any,
        description: dict[str, Any],
        door: dict[str, Any],
        token_env: str | None,
        is_routed: bool,
    ) -> None:
        self.rules = DoorRules(token=read_token(token_env), **door)
        if is_routed:
            check_address(await _proxies_host(), self.rules.token)
        self.answers = Answers(load_dataset(dataset), tools=tools, rank=rank, description=description)


async def _proxies_host() -> str | None:
    """Where Serve's HTTP proxies listen; None where there are none."""
    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    options = await controller.get_http_config.remote()
    host: str | None = options.host
    return host
