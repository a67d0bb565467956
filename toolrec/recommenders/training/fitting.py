"""One member's training: epochs, early stopping on validation NDCG@10, a time budget, a log.

Shape suffixes: D width, T positions with a target.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from toolrec.errors import CheckpointError, ConfigError
from toolrec.recommenders.config import FitConfig, Precision
from toolrec.recommenders.training.batches import Batch, Example, batches, num_batches
from toolrec.recommenders.training.fit_state import fitting, read_state, write_state
from toolrec.recommenders.training.losses import next_item_loss
from toolrec.recommenders.training.parallel import current_group
from toolrec.util.progress import Progress, track

WARMUP_BATCHES = 50
"""The learning rate rises linearly over so many batches: Adam's first steps are its largest."""

StoppedBy = Literal["patience", "epochs", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLog:
    """One line of the training log; `ndcg_at_10` is on the validation split, seconds count from the member's start.

    Args:
        cpu_s: of the processor, by all threads of this process; other work on the machine does not stretch them.
    """

    member: str
    epoch: int
    loss: float
    ndcg_at_10: float
    duration_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """How a training went; the model holds the weights of `best_epoch`. The NDCG@10 is on the validation split."""

    best_ndcg_at_10: float
    best_epoch: int
    num_epochs: int
    duration_s: float
    stopped_by: StoppedBy
    log: tuple[EpochLog, ...]


class Trainee(Protocol):
    """A member in training."""

    name: str

    @property
    def weight_ID(self) -> Tensor:
        """Item embeddings that the states are scored against."""
        ...

    @property
    def model(self) -> nn.Module:
        """What trains."""
        ...

    def examples(self, rng: np.random.Generator) -> Sequence[Example]:
        """The examples of one epoch."""
        ...

    def target_states(self, batch: Batch) -> Tensor:
        """States at the batch's positions with a target, row by row, `[T, D]`."""
        ...

    def validate(self) -> float:
        """NDCG@10 on the validation split, by full ranking."""
        ...


def fit(
    trainee: Trainee,
    config: FitConfig,
    *,
    seed: int,
    deadline_s: float | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
    state_path: Path | None = None,
    state_interval_s: float = 0.0,
) -> FitResult:
    """Trains until validation stops getting better, the epochs are done or the time is over; keeps the best epoch.

    Args:
        seed: of windows, the order of batches, dropout and negatives; the process's own random state is left as it was.
        deadline_s: a `time.monotonic()` at which to stop, the epoch under way included.
        on_epoch: told of every epoch when it has been validated; the model then holds that epoch's validated weights.
        state_path: a file that the training's state is written to after every epoch. Where it is there already, the training
            goes on from it, and `on_epoch` is told of its epochs first (by then the model holds the last one's weights). Of a
            group of processes the first one writes, and all read.
        state_interval_s: a state that was written so short a time ago is left until the next epoch; the last one is written.

    Raises:
        ConfigError: the loss is no longer a finite number.
        CheckpointError: the state is damaged, or is of another training.
    """
    first = trainee.examples(np.random.default_rng(seed))  # later epochs may have a few more or less
    total = config.max_epochs * num_batches(len(first), config.batch_size)
    devices = [trainee.weight_ID.device] if trainee.weight_ID.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed + current_group().position)
        this = _Fit(trainee, config, first, seed=seed, deadline_s=deadline_s)
        if state_path is not None and state_path.exists():
            this.restore(state_path)
        if not this.group.is_same(len(this.log)):
            raise CheckpointError(
                "the processes of this training find different states", value=str(state_path), hint="all have to see one folder"
            )
        done = len(this.log) * total // config.max_epochs
        with track(f"training {trainee.name}", total=total, unit="batches", done=done) as bar:
            return this.run(bar, on_epoch, state_path if this.group.is_first else None, state_interval_s)


def working_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of a training's products: bfloat16 where asked for, or where it is fast."""
    if precision == "auto":
        if device.type == "cuda":
            is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            can = torch.cpu.get_capabilities()
            is_fast = bool(can.get("avx512_bf16") or can.get("amx_bf16"))
        return torch.bfloat16 if is_fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _target_shares(examples: Sequence[Example], *, num_items: int) -> Tensor:
    count_I = np.bincount(np.concatenate([example.target_L for example in examples]), minlength=num_items + 1)
    count_I[0] = 0
    return torch.from_numpy(count_I / max(count_I.sum(), 1))


def rate_share(ndcgs: Sequence[float], *, patience: int) -> float:
    """How much of the learning rate is left: it is halved whenever `patience` epochs brought nothing better; 0 for never."""
    best, stale, share = -1.0, 0, 1.0
    for ndcg in ndcgs:
        stale = 0 if ndcg > best else stale + 1
        best = max(best, ndcg)
        if patience and stale == patience:
            share, stale = share / 2, 0
    return share


def _moments(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"optimizer.{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


class _Fit:
    def __init__(
        self, trainee: Trainee, config: FitConfig, first: Sequence[Example], *, seed: int, deadline_s: float | None
    ) -> None:
        self.trainee, self.config, self.group = trainee, config, current_group()
        self.deadline_s = math.inf if deadline_s is None else deadline_s
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        named = {name: p for name, p in trainee.model.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(named), list(named.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
        )
        self.dtype = working_dtype(config.precision, trainee.weight_ID.device)
        self.share_I = _target_shares(first, num_items=len(trainee.weight_ID) - 1)
        self.average = self._copies()
        self.best, self.best_epoch, self.best_ndcg = self._copies(), 0, -1.0
        self.log: list[EpochLog] = []
        self.settings: dict[str, Any] = {"member": trainee.name, "seed": seed, "config": config.as_json()}
        self.num_steps, self.rate = 0, config.learning_rate
        self.stopped_by: StoppedBy | None = None
        self.note = ""

    def run(
        self, bar: Progress, on_epoch: Callable[[EpochLog], None] | None, state_path: Path | None, state_interval_s: float
    ) -> FitResult:
        start_s = time.monotonic() - (self.log[-1].duration_s if self.log else 0.0)
        start_cpu_s = time.process_time() - (self.log[-1].cpu_s if self.log else 0.0)
        tell = on_epoch or (lambda _: None)
        for earlier in self.log:
            tell(earlier)
        if self.log:
            self._exchange()
        written_s = -math.inf
        while (stopped_by := self._stopped_by()) is None:
            ndcgs = [entry.ndcg_at_10 for entry in self.log]
            self.rate = self.config.learning_rate * rate_share(ndcgs, patience=self.config.decay_patience)
            loss = self._epoch(bar)
            self._exchange()  # what is validated and kept is the average
            ndcg = self._validate()
            self._record(loss, ndcg, duration_s=time.monotonic() - start_s, cpu_s=time.process_time() - start_cpu_s)
            if state_path is not None and time.monotonic() - written_s >= state_interval_s:
                write_state(state_path, *self._state())
                written_s = time.monotonic()
            tell(self.log[-1])
            self._exchange()
            bar.advance(0, note=self.note)
        if state_path is not None and self.stopped_by is None:
            self.stopped_by = stopped_by
            self._exchange()
            write_state(state_path, *self._state())
        with torch.no_grad():
            for parameter, best in zip(self.parameters, self.best, strict=True):
                parameter.copy_(best)
        return FitResult(
            best_ndcg_at_10=self.best_ndcg,
            best_epoch=self.best_epoch,
            num_epochs=len(self.log),
            duration_s=time.monotonic() - start_s,
            stopped_by=stopped_by,
            log=tuple(self.log),
        )

    def _stopped_by(self) -> StoppedBy | None:
        if self.stopped_by is not None:
            return self.stopped_by
        num_epochs = len(self.log)
        if num_epochs and self._is_over():
            return "time"
        if num_epochs - self.best_epoch >= self.config.patience:
            return "patience"
        return "epochs" if num_epochs >= self.config.max_epochs else None

    def _record(self, loss: float, ndcg: float, *, duration_s: float, cpu_s: float) -> None:
        epoch, name = len(self.log) + 1, self.trainee.name
        entry = EpochLog(member=name, epoch=epoch, loss=loss, ndcg_at_10=ndcg, duration_s=duration_s, cpu_s=cpu_s)
        self.log.append(entry)
        if ndcg > self.best_ndcg:
            self.best, self.best_epoch, self.best_ndcg = self._copies(), epoch, ndcg
        self.note = f"epoch {epoch}, loss {loss:.3f}, validation ndcg@10 {ndcg:.4f} (best {self.best_ndcg:.4f})"

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The training between two epochs, the model holding the validated weights."""
        tensors = {"rng.torch": torch.get_rng_state(), "rng.negatives": self.generator.get_state()}
        if self.trainee.weight_ID.is_cuda:
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.trainee.weight_ID.device)
        for name, parameter, average, best in zip(self.names, self.parameters, self.average, self.best, strict=True):
            tensors |= {f"weights.{name}": parameter, f"average.{name}": average, f"best.{name}": best}
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        fields = {
            "settings": self.settings,
            "rng": self.rng.bit_generator.state,
            "num_steps": self.num_steps,
            "best_epoch": self.best_epoch,
            "stopped_by": self.stopped_by,
            "log": [asdict(entry) for entry in self.log],
        }
        return tensors, fields

    @torch.no_grad()
    def restore(self, path: Path) -> None:
        """Takes up the training where a state left it."""
        tensors, fields = read_state(path)
        if fields["settings"] != self.settings:
            raise CheckpointError(
                f"the training's state {path} is of another training", value=fields["settings"], allowed=self.settings
            )
        self.generator.set_state(tensors["rng.negatives"])
        if not self.group.is_first:  # the state is the first process's, and no two shall drop out alike
            torch.manual_seed(self.settings["seed"] + self.group.position + self.group.size * len(fields["log"]))
        else:
            torch.set_rng_state(tensors["rng.torch"])
            if self.trainee.weight_ID.is_cuda:
                torch.cuda.set_rng_state(tensors["rng.cuda"], self.trainee.weight_ID.device)
        self.rng.bit_generator.state = fields["rng"]
        for name, parameter, average, best in zip(self.names, self.parameters, self.average, self.best, strict=True):
            for kind, own in (("weights", parameter), ("average", average), ("best", best)):
                own.copy_(fitting(path, tensors, f"{kind}.{name}", own))
        moments = [_moments(tensors, name) for name in self.names]
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(enumerate(moments)), "param_groups": groups})
        self.num_steps, self.best_epoch = fields["num_steps"], fields["best_epoch"]
        self.stopped_by = fields.get("stopped_by")
        self.log = [EpochLog(**entry) for entry in fields["log"]]
        self.best_ndcg = self.log[self.best_epoch - 1].ndcg_at_10

    def _copies(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def _epoch(self, bar: Progress) -> float:
        self.trainee.model.train()
        losses = []
        examples = self.trainee.examples(self.rng)
        for batch in batches(examples, batch_size=self.config.batch_size, rng=self.rng):
            losses.append(self._step(batch))
            bar.advance(1, note=self.note)
            if self._is_over():
                break
        return float(np.mean(losses))

    def _step(self, batch: Batch) -> float:
        self.num_steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, self.num_steps / WARMUP_BATCHES)
        self.optimizer.zero_grad(set_to_none=True)
        part = self.group.part(batch)
        num_targets = int(np.count_nonzero(part.target_BL))
        value = 0.0
        if num_targets:
            loss = self._loss(part)
            value = loss.item()
            loss.backward()  # type: ignore[no-untyped-call]
        value = self.group.average(self.parameters, value, num_targets)
        if not math.isfinite(value):
            raise ConfigError(
                f"training {self.trainee.name} diverged: the loss is no longer a finite number",
                value=value,
                hint=f"use a learning rate below {self.config.learning_rate:g}",
            )
        self.optimizer.step()
        self._follow()
        return value

    def _follow(self) -> None:
        """Moves the average towards the weights; a young average moves faster."""
        decay = min(self.config.averaging, self.num_steps / (self.num_steps + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1.0 - decay)

    def _exchange(self) -> None:
        """Swaps the weights with their average."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.data.copy_(average)
            average.copy_(kept)

    def _loss(self, batch: Batch) -> Tensor:
        weight_ID = self.trainee.weight_ID
        target_T = torch.from_numpy(batch.target_BL[batch.target_BL > 0]).to(weight_ID.device)
        with self._autocast():
            states_TD = self.trainee.target_states(batch)
        return next_item_loss(states_TD, weight_ID, target_T, config=self.config, share_I=self.share_I, generator=self.generator)

    def _autocast(self) -> torch.autocast:
        is_half = self.dtype == torch.bfloat16
        return torch.autocast(self.trainee.weight_ID.device.type, dtype=torch.bfloat16, enabled=is_half)

    def _validate(self) -> float:
        self.trainee.model.eval()
        # In single precision: scores in bfloat16 have ties that the lists will not have.
        with torch.no_grad():
            return self.group.agree(self.trainee.validate() if self.group.is_first else 0.0)

    def _is_over(self) -> bool:
        if math.isinf(self.deadline_s):
            return False
        return bool(self.group.agree(time.monotonic() >= self.deadline_s))
