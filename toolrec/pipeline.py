"""One evaluation from its settings to its figures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from toolrec.config import CompleteConfig, RunConfig
from toolrec.connect import connected, starts_own
from toolrec.data import Dataset, load_dataset
from toolrec.data.obscure import obscured
from toolrec.errors import ConfigError, RecordingError, RunFailedError, RunFolderError, RunStoppedError, ToolRecError
from toolrec.evaluation import FinishedRun, evaluate_run
from toolrec.evaluation.analyses.leaks import LEAK_COLUMNS
from toolrec.evaluation.baselines import OWN_PREFIX, ManyRecommender, OneByOne, RememberedLists, recommend_for
from toolrec.evaluation.behaviour import ROUND_COLUMNS
from toolrec.evaluation.run import left_out_fusions
from toolrec.llm import LLMConfig
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.policy import LABEL
from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import FlowSnapshot
from toolrec.llm.prices import Price, PriceTable
from toolrec.llm.stores.cache import ReplyCache
from toolrec.llm.stores.recording import RecordingHeader, begin_recording, end_recording, read_header
from toolrec.manifest import protocol_facts, recording_header, run_manifest
from toolrec.presets import unlike_the_authors
from toolrec.recommenders import Recommender, load_fusions, load_recommenders, recommenders_manifest
from toolrec.records import FINISHED, Usage, UserTask
from toolrec.report import write_report
from toolrec.runs.control import ControlFile
from toolrec.runs.failures import FailureLog, ending_of
from toolrec.runs.folder import (
    REPORT,
    Mirror,
    RunFolder,
    read_attempts,
    read_llm_counts,
    read_manifest,
    read_rounds,
    read_spend,
    read_users,
    rounds_by_part,
)
from toolrec.runs.ledger import ledger_of, void_spend
from toolrec.runs.mirror import mirrored
from toolrec.runs.run import stored_price
from toolrec.simulation.actor_pool import ActorPool
from toolrec.simulation.actors import SimulationSpec
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.driver import Driver
from toolrec.simulation.flow.budget_watch import BudgetWatch, budget_stop, journal_unfinished, spent_before
from toolrec.simulation.flow.endpoint_notes import endpoint_notes
from toolrec.simulation.flow.watch import FlowWatch, llm_counts
from toolrec.simulation.monitor.live import RunWatch
from toolrec.simulation.monitor.prometheus import RunMetrics
from toolrec.simulation.stopping import Stopping
from toolrec.simulation.tool_deployment import ToolsRequest, application_config, chosen_attributes, tools_for
from toolrec.stress.histories import with_hard_histories
from toolrec.surrogate.check import choose_protocol, try_endpoint
from toolrec.surrogate.strategies import check_strategy, takes_protocol
from toolrec.util.files import sha256_json
from toolrec.util.plugins import load_plugin
from toolrec.util.progress import stage, watched
from toolrec.util.slug import slug

log = logging.getLogger(__name__)

COUNTS_INTERVAL_S = 10.0


SimulateUsers = Callable[[CompleteConfig, Dataset, RunFolder, "SimulationPlan", Stopping], None]
"""Simulates the users that a run folder lacks, and commits them."""


def run_evaluation(
    config: RunConfig | Mapping[str, Any],
    *,
    stopping: Stopping | None = None,
    simulate_users: SimulateUsers | None = None,
    has_report: bool = True,
    remembered: RememberedLists | None = None,
) -> tuple[dict[str, Any], Path]:
    """Simulates the users, scores their lists and the recommenders', and writes the run folder.

    Args:
        config: the settings, or a mapping of them; relative paths are the working folder's.
        stopping: how the run is asked to stop; by Ctrl-C and SIGTERM if not given.
        simulate_users: how users are simulated; on Ray actors if not given.
        has_report: whether `report.html` is written; its plots take longer than all figures of a few users.
        remembered: lists of the recommenders that evaluations of this process share; made anew if not given.

    Returns:
        The summary, as in `summary.json`, and the run folder.

    Raises:
        InputError: something given is wrong; nothing was written.
        LLMError: the endpoint cannot be used.
        StorageError: the disk is full; the run is resumable.
    """
    complete = RunConfig.of(config).completed()
    nothing_worked = None
    with mirrored(complete.run, resume=complete.resume) as mirror:
        dataset, manifest = simulate(complete, stopping=stopping, simulate_users=simulate_users, mirror=mirror)
        summary = _figures(complete, dataset, manifest, has_report=has_report, remembered=remembered)
        nothing_worked = _nothing_worked(complete)
    if nothing_worked is not None:
        raise nothing_worked
    return summary, complete.run


def _with_protocol(config: CompleteConfig) -> CompleteConfig:
    """The settings with a protocol in the place of `auto`.

    A resumed run keeps its own, a replay the recorded run's. Otherwise it is the first that the endpoint is seen to take;
    `tools` for the embedded rules, and where the endpoint is not to be tried.
    """
    if config.surrogate.protocol != "auto":
        return config
    if config.resume and config.folder.exists():
        chosen = read_manifest(config.folder)["settings"]["surrogate.protocol"]
    elif not takes_protocol(config.surrogate.strategy):
        return config.replaced(**{"surrogate.protocol": "text"})
    elif config.stores.replay is not None:
        chosen = read_header(config.stores.replay).settings.get("surrogate.protocol", "tools")
    elif not config.is_endpoint_tried:
        chosen = "tools"
    else:
        stage("trying which protocol the LLM endpoint takes, with two turns of a made-up user")
        chosen = asyncio.run(choose_protocol(config.llm_config()))
    if not config.is_embedded:
        stage(f"--protocol auto: {chosen}")
    return config.replaced(**{"surrogate.protocol": chosen})


def simulate(
    config: CompleteConfig,
    *,
    stopping: Stopping | None = None,
    simulate_users: SimulateUsers | None = None,
    mirror: Mirror | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """Simulates the users into the run folder; nothing is scored yet.

    Args:
        mirror: of a run folder at a URL.

    Returns:
        The data set and the run's manifest.

    Raises:
        ToolRecError: as `run_evaluation`.
    """
    dataset = load_dataset(config.dataset)
    recommenders = recommenders_manifest(config.recommenders)
    load_recommenders(config.recommenders, dataset)  # refuses a wrong or damaged folder before anything is started
    was_tried = config.surrogate.protocol == "auto" and not (config.resume and config.folder.exists())
    config = _with_protocol(config)
    llm = config.llm_config()
    request = tools_request(config, dataset, recommenders)
    attributes = chosen_attributes(config.tools.attributes, dataset, recommenders)
    check_strategy(config.surrogate, pool=dataset.pool, attributes=attributes, model=llm.model)
    load_plugin("tool", config.tools.rank_tool)
    own_recommenders(config, dataset)
    dataset = with_hard_histories(dataset, config.stress)
    prices = None if config.budget.prices is None else PriceTable.read(config.budget.prices)
    manifest = run_manifest(config, dataset=dataset, recommenders=recommenders, llm=llm, prices=prices)
    limits, price = config.budget, run_price(config, manifest)
    users = dataset.sample_users(config.evaluation.users, config.evaluation.seed, split=config.evaluation.split)
    plan = SimulationPlan(
        llm=llm,
        tools=request,
        budget=Budget(max_usd=limits.max_usd, max_tokens=limits.max_tokens, price=price),
        user_indexes=tuple(users.tolist()),
    )
    header = recording_header(manifest, llm)
    if config.stores.replay is not None:
        _compare_with_recording(config.stores.replay, header)
    if config.stores.cache is not None:
        ReplyCache(config.stores.cache, endpoint=config.reply_stores().endpoint).close()  # refuses what is no cache
    has_protocol = takes_protocol(config.surrogate.strategy)
    if config.is_endpoint_tried and not (was_tried and has_protocol):
        stage("trying the LLM endpoint with two turns of a made-up user")
        problem = asyncio.run(try_endpoint(llm, config.surrogate.protocol if has_protocol else "text"))
        if problem is not None and has_protocol:
            stage(f"the made-up user came to no final list, users may not either: {problem}")
    told = dataset.with_pool(obscured(dataset.pool, config.surrogate.obscure))
    with _named(config):
        folder = _open_folder(config, manifest, mirror)
    try:
        with _recorded(config, header), stopping or Stopping() as stopping:
            (simulate_users or _simulate)(config, told, folder, plan, stopping)
            folder.forget_in_flight()
    except BaseException as error:
        folder.discard_if_untouched()
        if isinstance(error, KeyboardInterrupt):
            stage(_how_to_go_on(config, len(plan.user_indexes)))
        raise
    finally:
        folder.close()
    _refuse_if_users_are_missing(config, plan.user_indexes)
    return dataset, manifest


@contextlib.contextmanager
def _recorded(config: CompleteConfig, header: RecordingHeader) -> Iterator[None]:
    """Keeps a recording of what happens inside, where one is asked for; it is whole on any way out."""
    if config.stores.record is None:
        yield
        return
    folder = config.stores.record
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
class SimulationPlan:
    """What the simulation is made of beside its settings."""

    llm: LLMConfig
    tools: ToolsRequest
    budget: Budget
    user_indexes: tuple[int, ...]


def tools_request(config: CompleteConfig, dataset: Dataset, recommenders: dict[str, Any]) -> ToolsRequest:
    """Where the tools come from.

    Raises:
        ConfigError: an attribute is unknown.
    """
    chosen_attributes(config.tools.attributes, dataset, recommenders)
    request = ToolsRequest(
        tools=config.tools,
        dataset=str(config.dataset),
        recommenders=str(config.recommenders),
        dataset_checksum=dataset.checksum,
        recommenders_checksum=recommenders["checksum"],
        app_name=application_name(config.run),
        resource_timeout_s=config.simulation.resource_timeout_s,
    )
    if config.tools.mode == "deploy":
        application_config(request)
    return request


def application_name(run: Path) -> str:
    """The name of a run's own Serve application: the same for the same run folder, another for any other."""
    return f"toolrec-{slug(run.name)}-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"


def user_tasks(
    dataset: Dataset, config: CompleteConfig, user_indexes: Sequence[int], *, attempts: Mapping[int, int]
) -> Iterator[UserTask]:
    """What the simulation is given of the users: never a target; `attempts` numbers those begun before."""
    split = config.evaluation.split
    for user_index in user_indexes:
        ratings = dataset.history_ratings(user_index, split)
        yield UserTask(
            user_index=user_index,
            user_id=dataset.user_ids[user_index],
            history=tuple(dataset.history(user_index, split).tolist()),
            ratings=None if ratings is None else tuple(ratings.tolist()),
            attempt=attempts.get(user_index, 0) + 1,
        )


def _open_folder(config: CompleteConfig, manifest: dict[str, Any], mirror: Mirror | None) -> RunFolder:
    if config.resume and config.folder.exists():
        defaults = RunConfig(dataset=config.dataset).result_settings() | {"surrogate.protocol": "tools"}  # before `auto` was it
        return RunFolder.resume(config.folder, manifest, defaults=defaults, accepts_changes=config.accept_changes, mirror=mirror)
    return RunFolder.create(config.folder, manifest, mirror=mirror)


@contextlib.contextmanager
def _named(config: CompleteConfig) -> Iterator[None]:
    """Errors of the run folder name it as the person did, and not its working folder."""
    try:
        yield
    except RunFolderError as error:
        if error.value != str(config.folder):
            raise
        raise RunFolderError(error.message, value=str(config.run), hint=error.hint) from None


def _how_to_go_on(config: CompleteConfig, num_users: int) -> str:
    if not config.folder.exists():
        return "stopped before anything was simulated"
    done = f"stopped: {len(read_users(config.folder))} of {num_users} users are done"
    return f"{done}; the same command with --run {config.run} --resume goes on"


def _simulate(config: CompleteConfig, dataset: Dataset, folder: RunFolder, plan: SimulationPlan, stopping: Stopping) -> None:
    users = read_users(config.folder)
    done = set(users["user_index"].tolist())
    waiting = [user_index for user_index in plan.user_indexes if user_index not in done]
    budget = plan.budget.replaced(spent=spent_before(folder))
    if not waiting:
        stage("every user is simulated already")
        return
    if budget.affordable(Usage()) == 0:
        raise budget_stop(budget, Usage())
    size = config.simulation.extended(SimulationConfig, flow=config.flow, budget=budget)
    tasks = user_tasks(dataset, config, waiting, attempts=read_attempts(config.folder))
    with contextlib.ExitStack() as stack:
        cluster = config.ray
        stage("starting Ray" if starts_own(cluster.address) else f"joining Ray at {cluster.address or 'its own address'}")
        is_own = stack.enter_context(connected(cluster.address, num_cpus=cluster.num_cpus, metrics_port=cluster.metrics_port))
        stopping.listen()
        if cluster.metrics_port is not None:
            stage(f"Prometheus is answered at http://127.0.0.1:{cluster.metrics_port}/metrics")
        stage(f"tools: {config.tools.mode}")
        tools = stack.enter_context(tools_for(plan.tools, on_own_ray=is_own))
        spec = SimulationSpec(
            surrogate=config.surrogate,
            llm=plan.llm,
            tools=tools,
            rank_tool=config.tools.rank_tool,
            run=config.run.name,
            stores=config.reply_stores(),
            stress=config.stress,
        )
        embedded = EmbeddedOptions() if config.is_embedded else None
        stage(f"starting actors; LLM: {_who_answers(config, plan.llm)}")
        actor_pool = ActorPool(spec, dataset.pool, size, embedded=embedded, rounds_path=folder.rounds_in_flight)
        stack.callback(actor_pool.stop)
        flow = FlowWatch(
            actor_pool.governor,
            size.flow,
            outage_timeout_s=size.outage_timeout_s,
            max_failed_requests=size.max_failed_requests,
            control=ControlFile(folder.path, size.flow),
        )
        watch = stack.enter_context(_watching(config, plan, users, budget, flow))
        flow.listeners.append(BudgetWatch(budget))
        is_proven = config.is_endpoint_tried and bool(users["ended_by"].isin(sorted(FINISHED)).any())
        driver = Driver(actor_pool, folder, size, watch, flow, is_endpoint_proven=is_proven)
        _unwrapped(lambda: stopping.run(_drive(driver, tasks, flow, folder, budget.spent)))


@contextlib.contextmanager
def _watching(
    config: CompleteConfig, plan: SimulationPlan, users: pd.DataFrame, budget: Budget, flow: FlowWatch
) -> Iterator[RunWatch]:
    """What the driver tells of the run, shown to a person and to Prometheus; `users` are those of earlier sessions."""
    watch = RunWatch(
        num_users=len(plan.user_indexes),
        earlier=Counter(map(ending_of, users["ended_by"], users["failure_kind"])),
        budget=budget,
        failures=FailureLog(config.folder, secrets=[plan.llm.read_key()]),
    )
    metrics = RunMetrics(config.run.name)
    flow.listeners += [watch.see, lambda _: metrics.tell(watch.facts())]
    with watched(watch):
        try:
            yield watch
        finally:
            watch.see(flow.latest)


def _who_answers(config: CompleteConfig, llm: LLMConfig) -> str:
    if config.is_embedded:
        return LABEL
    return llm.model if config.stores.replay is None else f"a recording of {llm.model}"


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


def _refuse_if_users_are_missing(config: CompleteConfig, user_indexes: Sequence[int]) -> None:
    missing = set(user_indexes) - set(read_users(config.folder)["user_index"].tolist())
    if missing:
        said = f"{len(missing)} users are not in the run folder"
        raise RunStoppedError(said, value=str(config.run), hint="--resume simulates them")


def _nothing_worked(config: CompleteConfig) -> RunFailedError | None:
    """A run whose every user came to nothing through us is no result: the figures are written, the first reason is told."""
    users = read_users(config.folder)
    if (users["ended_by"] == "cancelled").all():
        return RunFailedError(f"no user was simulated; the first one: {users['error'].iloc[0]}", value=str(config.run))
    return None


def _figures(
    config: CompleteConfig,
    dataset: Dataset,
    manifest: dict[str, Any],
    *,
    has_report: bool,
    remembered: RememberedLists | None,
) -> dict[str, Any]:
    stage("scoring the recommenders alone on the same users")
    recommenders = load_recommenders(config.recommenders, dataset)
    trained = recommenders_manifest(config.recommenders)
    kept: dict[str, ManyRecommender] = {
        name: r for name, r in recommenders.items() if name not in dataset.pool.attributes or _has(config, name)
    }
    kept |= own_recommenders(config, dataset)
    users = read_users(config.folder)
    run = FinishedRun(
        users=users,
        rounds=read_rounds(config.folder, columns=ROUND_COLUMNS),
        messages=lambda: rounds_by_part(config.folder, columns=LEAK_COLUMNS),
        protocol=protocol_facts(config, manifest) | _llm_facts(config.folder),
        notes=(*left_out_fusions(trained, kept), *unlike_the_authors(config.compat, trained)),
        void_usage=void_spend(ledger_of(read_spend(config.folder), users)),
        price=run_price(config, manifest),
    )
    fusions = load_fusions(config.recommenders, dataset, {name: r for name, r in recommenders.items() if name in kept})
    source = sha256_json([trained["checksum"], trained.get("fusions"), list(config.evaluation.baselines)])
    summary = evaluate_run(
        run,
        dataset=dataset,
        recommenders=kept,
        folder=config.folder,
        fusions=fusions,
        recommend=recommend_for if remembered is None else remembered.by(source),
    )
    if has_report:
        stage(f"writing {REPORT}")
        write_report([config.folder], config.folder / REPORT, dataset=dataset)
    return summary


def run_price(config: CompleteConfig, manifest: dict[str, Any]) -> Price | None:
    """What the model costs: by the price file given now, or the one that the resumed run was started with."""
    is_resumed = config.resume and config.folder.exists()
    return stored_price(read_manifest(config.folder) if is_resumed and config.budget.prices is None else manifest)


def _llm_facts(run: Path) -> dict[str, Any]:
    """What the endpoint did not take as it was asked stands beside the figures."""
    counts = read_llm_counts(run)
    if not counts:
        return {}
    notes = list(endpoint_notes(counts).values())
    events = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    return {"llm_events": events, **({"notes": notes} if notes else {})}


def own_recommenders(config: CompleteConfig, dataset: Dataset) -> dict[str, ManyRecommender]:
    """The user's own recommenders that are scored beside the run, by row name.

    Raises:
        ConfigError: one cannot be found, or two have the same name.
    """
    own: dict[str, ManyRecommender] = {}
    for path in config.evaluation.baselines:
        recommender: Recommender = load_plugin("recommender", path)(dataset)
        name = f"{OWN_PREFIX}{recommender.name}"
        if name in own:
            raise ConfigError("two own recommenders have the same name", value=recommender.name)
        own[name] = OneByOne(recommender)
    return own


def _has(config: CompleteConfig, attribute: str) -> bool:
    return config.tools.attributes is None or attribute in config.tools.attributes
