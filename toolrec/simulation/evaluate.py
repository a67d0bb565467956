"""One evaluation from its settings to its figures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from toolrec.connect import connected
from toolrec.data import Dataset, load_dataset
from toolrec.errors import ConfigError, RecordingError, RunFailedError, RunStoppedError, ToolRecError
from toolrec.evaluation import FinishedRun, evaluate_run
from toolrec.evaluation.baselines import OWN_PREFIX, ManyRecommender, OneByOne
from toolrec.evaluation.behaviour import ROUND_COLUMNS
from toolrec.llm import LLMConfig
from toolrec.llm.budget import Budget
from toolrec.llm.cache import ReplyCache
from toolrec.llm.check import try_endpoint
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.flow import FlowSettings, FlowSnapshot
from toolrec.llm.prices import Price, PriceTable
from toolrec.llm.recording import RecordingHeader, begin_recording, end_recording, read_header
from toolrec.parts import load_part
from toolrec.progress import stage, watched
from toolrec.recommenders import Recommender, load_fusions, load_recommenders, recommenders_manifest
from toolrec.records import FINISHED, Usage, UserTask
from toolrec.simulation.actors import SimulationSpec
from toolrec.simulation.budget import BudgetWatch, budget_stop, journal_unfinished, spent_before
from toolrec.simulation.config import EvaluationConfig, SimulationConfig
from toolrec.simulation.control import ControlFile
from toolrec.simulation.crew import Crew
from toolrec.simulation.driver import Driver
from toolrec.simulation.failures import FailureLog, ending_of
from toolrec.simulation.flow_watch import FlowWatch, llm_counts
from toolrec.simulation.live import RunWatch
from toolrec.simulation.manifest import protocol_facts, recording_header, run_manifest, stored_price
from toolrec.simulation.metrics import RunMetrics
from toolrec.simulation.run_folder import (
    RunFolder,
    read_attempts,
    read_llm_counts,
    read_manifest,
    read_rounds,
    read_spend,
    read_users,
)
from toolrec.simulation.spend import ledger_of, void_spend
from toolrec.simulation.stopping import Stopping
from toolrec.simulation.tool_deployment import ToolsRequest, application_config, tools_for
from toolrec.surrogate import SurrogateConfig

log = logging.getLogger(__name__)

COUNTS_INTERVAL_S = 10.0


def run_evaluation(config: EvaluationConfig) -> tuple[dict[str, Any], Path]:
    """Simulates the users, scores their lists and the recommenders', and writes the run folder.

    Returns:
        The summary, as in `summary.json`, and the run folder.

    Raises:
        InputError: something given is wrong; nothing was written.
        LLMError: the endpoint cannot be used.
        StorageError: the disk is full; the run is resumable.
    """
    dataset, manifest = simulate(config)
    summary = _figures(config, dataset, manifest)
    _refuse_if_nothing_worked(config.run)
    return summary, config.run


def simulate(config: EvaluationConfig) -> tuple[Dataset, dict[str, Any]]:
    """Simulates the users into the run folder; nothing is scored yet.

    Returns:
        The data set and the run's manifest.

    Raises:
        ToolRecError: as `run_evaluation`.
    """
    dataset = load_dataset(config.dataset)
    recommenders = recommenders_manifest(config.recommenders)
    load_recommenders(config.recommenders, dataset)  # refuses a wrong or damaged folder before anything is started
    surrogate, llm = surrogate_config(config), llm_config(config)
    request = tools_request(config, dataset, recommenders)
    load_part("strategy", config.strategy), load_part("tool", config.rank_tool)
    own_recommenders(config, dataset)
    prices = None if config.prices is None else PriceTable.read(config.prices)
    manifest = run_manifest(config, dataset=dataset, recommenders=recommenders, surrogate=surrogate, llm=llm, prices=prices)
    price = run_price(config, manifest)
    parts = SimulationParts(
        surrogate=surrogate,
        llm=llm,
        tools=request,
        size=simulation_config(config),
        budget=Budget(max_usd=config.budget_usd, max_tokens=config.budget_tokens, price=price),
        user_indexes=tuple(dataset.sample_users(config.num_users, config.seed).tolist()),
    )
    header = recording_header(manifest, llm)
    if config.stores.replay is not None:
        _compare_with_recording(Path(config.stores.replay), header)
    if config.stores.cache is not None:
        ReplyCache(Path(config.stores.cache), endpoint=config.stores.endpoint).close()  # refuses what is no cache
    if config.is_endpoint_tried:
        stage("trying the LLM endpoint with one call")
        asyncio.run(try_endpoint(llm, config.protocol))
    folder = _open_folder(config, manifest)
    try:
        with _recorded(config, header), Stopping() as stopping:
            _simulate(config, dataset, folder, parts, stopping)
            folder.forget_in_flight()
    except BaseException as error:
        folder.discard_if_untouched()
        if isinstance(error, KeyboardInterrupt):
            stage(_how_to_go_on(config.run, len(parts.user_indexes)))
        raise
    finally:
        folder.close()
    _refuse_if_users_are_missing(config.run, parts.user_indexes)
    return dataset, manifest


@contextlib.contextmanager
def _recorded(config: EvaluationConfig, header: RecordingHeader) -> Iterator[None]:
    """Keeps a recording of what happens inside, where one is asked for; it is whole on any way out."""
    if config.stores.record is None:
        yield
        return
    folder = Path(config.stores.record)
    begin_recording(folder, header, is_resumed=config.resume)
    try:
        yield
    finally:
        end_recording(folder)


def _compare_with_recording(folder: Path, header: RecordingHeader) -> None:
    """Says in what a replay differs from the recorded run: wherever that changes a call, the recording has no reply.

    Raises:
        RecordingError: it differs in what every call has.
    """
    recorded = read_header(folder)
    different = [name for name, value in header.parameters.items() if recorded.parameters.get(name) != value]
    if different:
        said = ", ".join(f"{name} was {recorded.parameters.get(name)}, now {header.parameters[name]}" for name in different)
        raise RecordingError(f"the recording was made with other sampling parameters: {said}", value=str(folder))
    for difference in recorded.differences(header.settings):
        stage(f"not as in the recorded run: {difference}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationParts:
    """What the simulation is made of."""

    surrogate: SurrogateConfig
    llm: LLMConfig
    tools: ToolsRequest
    size: SimulationConfig
    budget: Budget
    user_indexes: tuple[int, ...]


def surrogate_config(config: EvaluationConfig) -> SurrogateConfig:
    """The surrogate's settings."""
    return SurrogateConfig(
        protocol=config.protocol,
        rounds=config.rounds,
        prompt_history_length=config.prompt_history_length,
        finish_policy=config.finish_policy,
        mask_seen=config.mask_seen,
        max_reasks=config.max_reasks,
        shuffle_rank_candidates=config.shuffle_rank_candidates,
        user_token_budget=config.user_token_budget,
        user_timeout_s=config.user_timeout_s,
    )


def llm_config(config: EvaluationConfig) -> LLMConfig:
    """The LLM client's settings; the embedded endpoint's address is known only when it runs."""
    return LLMConfig(
        base_url=config.llm_url or "http://127.0.0.1/v1",
        model=config.llm_model or MODEL_NAME,
        api_key_env=config.llm_key_env if config.llm_url else "",  # no key goes to the embedded rules
        temperature=config.temperature,
        seed=config.llm_seed,
        max_output_tokens=config.llm_max_output_tokens,
        max_attempts=config.llm_max_attempts,
        timeout_s=config.llm_timeout_s,
        max_malformed=config.llm_max_malformed,
        user_max_failed_requests=config.llm_max_failed_user,
        concurrency=config.concurrency,
    )


def simulation_config(config: EvaluationConfig) -> SimulationConfig:
    """How users are spread over actors, and what these may ask of the endpoint together."""
    return SimulationConfig(
        concurrency=config.concurrency,
        num_actors=config.actors,
        flow=FlowSettings(
            requests_per_minute=config.requests_per_minute,
            tokens_per_minute=config.tokens_per_minute,
            llm_concurrency=config.llm_concurrency,
        ),
        outage_timeout_s=config.outage_timeout_s,
        max_failed_requests=config.max_failed_requests,
    )


def tools_request(config: EvaluationConfig, dataset: Dataset, recommenders: dict[str, Any]) -> ToolsRequest:
    """Where the tools come from.

    Raises:
        ConfigError: an attribute is unknown, or the options' file cannot be read.
    """
    trained = [member["name"] for member in recommenders["members"] if member["name"] in dataset.pool.attributes]
    for name in config.attributes or ():
        if name not in trained:
            raise ConfigError("no recommender was trained for this attribute", value=name, allowed=trained)
    request = ToolsRequest(
        mode=config.tools,
        dataset=str(config.dataset),
        recommenders=str(config.recommenders),
        dataset_checksum=dataset.checksum,
        recommenders_checksum=recommenders["checksum"],
        app_name=application_name(config.run),
        attributes=config.attributes,
        options=_tools_options(config.tools_config),
        keep=config.keep_tools,
    )
    if request.mode == "deploy":
        application_config(request)
    return request


def application_name(run: Path) -> str:
    """The name of a run's own Serve application: the same for the same run folder, another for any other."""
    readable = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")[:40]
    return f"toolrec-{readable}-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"


def _tools_options(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the tools' options ({error})", value=str(path)) from error
    if not isinstance(options, dict):
        raise ConfigError("the tools' options are not a mapping", value=str(path))
    return options


def user_tasks(
    dataset: Dataset, config: EvaluationConfig, user_indexes: Sequence[int], *, attempts: Mapping[int, int]
) -> Iterator[UserTask]:
    """What the simulation is given of the users: never a target; `attempts` numbers those begun before."""
    for user_index in user_indexes:
        ratings = dataset.history_ratings(user_index, config.split)
        yield UserTask(
            user_index=user_index,
            user_id=dataset.user_ids[user_index],
            history=tuple(dataset.history(user_index, config.split).tolist()),
            ratings=None if ratings is None else tuple(ratings.tolist()),
            attempt=attempts.get(user_index, 0) + 1,
        )


def _open_folder(config: EvaluationConfig, manifest: dict[str, Any]) -> RunFolder:
    if config.resume and config.run.exists():
        return RunFolder.resume(config.run, manifest)
    return RunFolder.create(config.run, manifest)


def _how_to_go_on(run: Path, num_users: int) -> str:
    if not run.exists():
        return "stopped before anything was simulated"
    return f"stopped: {len(read_users(run))} of {num_users} users are done; the same command with --run {run} --resume goes on"


def _simulate(config: EvaluationConfig, dataset: Dataset, folder: RunFolder, parts: SimulationParts, stopping: Stopping) -> None:
    users = read_users(config.run)
    done = set(users["user_index"].tolist())
    waiting = [user_index for user_index in parts.user_indexes if user_index not in done]
    budget = replace(parts.budget, spent=spent_before(folder))
    if not waiting:
        stage("every user is simulated already")
        return
    if budget.affordable(Usage()) == 0:
        raise budget_stop(budget, Usage())
    size = replace(parts.size, budget=budget)
    tasks = user_tasks(dataset, config, waiting, attempts=read_attempts(config.run))
    with contextlib.ExitStack() as stack:
        stage("starting Ray" if config.address is None else f"joining Ray at {config.address}")
        is_own = stack.enter_context(connected(config.address, num_cpus=config.num_cpus, metrics_port=config.metrics_port))
        stopping.listen()
        if config.metrics_port is not None:
            stage(f"Prometheus is answered at http://127.0.0.1:{config.metrics_port}/metrics")
        stage(f"tools: {config.tools}")
        tools = stack.enter_context(tools_for(parts.tools, on_own_ray=is_own))
        spec = SimulationSpec(
            surrogate=parts.surrogate,
            llm=parts.llm,
            tools=tools,
            strategy=config.strategy,
            rank_tool=config.rank_tool,
            run=config.run.name,
            stores=config.stores,
        )
        embedded = EmbeddedOptions() if config.is_embedded else None
        stage(f"starting actors; LLM: {_who_answers(config)}")
        crew = Crew(spec, dataset.pool, size, embedded=embedded, rounds_path=folder.rounds_in_flight)
        stack.callback(crew.stop)
        flow = FlowWatch(
            crew.governor,
            size.flow,
            outage_timeout_s=size.outage_timeout_s,
            max_failed_requests=size.max_failed_requests,
            control=ControlFile(folder.path, size.flow),
        )
        watch = stack.enter_context(_watching(config, parts, users, budget, flow))
        flow.listeners.append(BudgetWatch(budget))
        is_proven = config.is_endpoint_tried and bool(users["ended_by"].isin(sorted(FINISHED)).any())
        driver = Driver(crew, folder, size, watch, flow, is_endpoint_proven=is_proven)
        _unwrapped(lambda: stopping.run(_drive(driver, tasks, flow, folder, budget.spent)))


@contextlib.contextmanager
def _watching(
    config: EvaluationConfig, parts: SimulationParts, users: pd.DataFrame, budget: Budget, flow: FlowWatch
) -> Iterator[RunWatch]:
    """What the driver tells of the run, shown to a person and to Prometheus; `users` are those of earlier sessions."""
    watch = RunWatch(
        num_users=len(parts.user_indexes),
        earlier=Counter(map(ending_of, users["ended_by"], users["counts"])),
        budget=budget,
        failures=FailureLog(config.run, secrets=[parts.llm.read_key()]),
    )
    metrics = RunMetrics(config.run.name)
    flow.listeners += [watch.see, lambda _: metrics.tell(watch.facts())]
    with watched(watch):
        try:
            yield watch
        finally:
            watch.see(flow.latest)


def _who_answers(config: EvaluationConfig) -> str:
    if config.stores.replay is not None:
        return f"a recording of {config.llm_model}"
    return config.llm_model or "embedded rules, not a language model"


def _counts_noted(folder: RunFolder) -> Callable[[FlowSnapshot], None]:
    """Writes the counts every now and then: a driver that is killed takes no more than these seconds of them along."""
    last_s = time.monotonic()

    def note(snapshot: FlowSnapshot) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= COUNTS_INTERVAL_S:
            last_s = time.monotonic()
            folder.note_llm_counts(llm_counts(snapshot))

    return note


async def _drive(driver: Driver, tasks: Iterator[UserTask], flow: FlowWatch, folder: RunFolder, before: Usage) -> None:
    flow.listeners.append(_counts_noted(folder))
    try:
        await driver.run(tasks)
    finally:
        await driver.rest()
        last = await flow.last()
        await driver.journal_spend()
        folder.note_llm_counts(llm_counts(last))
        journal_unfinished(folder, before=before, session=last.usage)


def _unwrapped(run: Callable[[], None]) -> None:
    """Runs, and raises the first of our own errors out of a group."""
    try:
        run()
    except BaseExceptionGroup as group:
        ours = group.subgroup(ToolRecError)
        error: BaseException = ours if ours is not None else group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _refuse_if_users_are_missing(run: Path, user_indexes: Sequence[int]) -> None:
    missing = set(user_indexes) - set(read_users(run)["user_index"].tolist())
    if missing:
        raise RunStoppedError(f"{len(missing)} users are not in the run folder", value=str(run), hint="--resume simulates them")


def _refuse_if_nothing_worked(run: Path) -> None:
    """A run whose every user came to nothing through us is no result: the figures are written, the first reason is told."""
    users = read_users(run)
    if (users["ended_by"] == "cancelled").all():
        raise RunFailedError(f"no user was simulated; the first one: {users['error'].iloc[0]}", value=str(run))


def _figures(config: EvaluationConfig, dataset: Dataset, manifest: dict[str, Any]) -> dict[str, Any]:
    stage("scoring the recommenders alone on the same users")
    recommenders = load_recommenders(config.recommenders, dataset)
    kept: dict[str, ManyRecommender] = {
        name: r for name, r in recommenders.items() if name not in dataset.pool.attributes or _has(config, name)
    }
    kept |= own_recommenders(config, dataset)
    users = read_users(config.run)
    run = FinishedRun(
        users=users,
        rounds=lambda user_index: read_rounds(config.run, user_index, columns=ROUND_COLUMNS if user_index is None else None),
        protocol=protocol_facts(config, manifest) | _llm_facts(config.run),
        void_usage=void_spend(ledger_of(read_spend(config.run), users)),
        price=run_price(config, manifest),
    )
    fusions = load_fusions(config.recommenders, dataset, {name: r for name, r in recommenders.items() if name in kept})
    return evaluate_run(run, dataset=dataset, recommenders=kept, folder=config.run, fusions=fusions)


def run_price(config: EvaluationConfig, manifest: dict[str, Any]) -> Price | None:
    """What the model costs: by the price file given now, or the one that the resumed run was started with."""
    is_resumed = config.resume and config.run.exists()
    return stored_price(read_manifest(config.run) if is_resumed and config.prices is None else manifest)


def _llm_facts(run: Path) -> dict[str, Any]:
    """What the endpoint did not take as it was asked stands beside the figures."""
    counts = read_llm_counts(run)
    return {"llm_events": ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))} if counts else {}


def own_recommenders(config: EvaluationConfig, dataset: Dataset) -> dict[str, ManyRecommender]:
    """The user's own recommenders that are scored beside the run, by row name.

    Raises:
        ConfigError: one cannot be found, or two have the same name.
    """
    own: dict[str, ManyRecommender] = {}
    for path in config.baselines:
        recommender: Recommender = load_part("recommender", path)(dataset)
        name = f"{OWN_PREFIX}{recommender.name}"
        if name in own:
            raise ConfigError("two own recommenders have the same name", value=recommender.name)
        own[name] = OneByOne(recommender)
    return own


def _has(config: EvaluationConfig, attribute: str) -> bool:
    return config.attributes is None or attribute in config.attributes
