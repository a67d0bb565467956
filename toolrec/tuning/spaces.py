"""Search spaces: what a sweep draws its trials' settings from, as values that a protocol can hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from toolrec.errors import ConfigError
from toolrec.recommenders import FitConfig, RecommendersConfig, TransformerConfig
from toolrec.util.settings import REQUIRED, Settings, setting

DomainKind = Literal["loguniform", "uniform", "choice"]

_OF_TRANSFORMER = frozenset(TransformerConfig.setting_names())
_OF_FIT = frozenset(FitConfig.setting_names()) - {"max_epochs", "patience", "max_validation_users"}
_OF_BOTH = frozenset({"num_buckets", "mask_share"})
PARAMETERS = _OF_TRANSFORMER | _OF_FIT | _OF_BOTH
"""What can be searched. Epochs and patience are the sweep's, and all trials are validated on the same users."""


class Domain(Settings):
    """Where one parameter is drawn from; also written as `{loguniform: [0.0003, 0.01]}`."""

    kind: DomainKind = setting(REQUIRED, "`loguniform` and `uniform` draw between two values, `choice` from all.")
    values: tuple[Any, ...] = setting(REQUIRED, "Lowest and highest, or those to choose from.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, written: Any) -> Any:
        if isinstance(written, Mapping) and len(written) == 1:
            [(kind, values)] = written.items()
            if isinstance(values, list | tuple):
                return {"kind": kind, "values": values}
        return written

    @model_validator(mode="after")
    def _two_bounds_or_choices(self) -> Self:
        if self.kind == "choice":
            if not self.values:
                raise ConfigError("a choice needs values to choose from", value=list(self.values))
            return self
        lowest = 0.0 if self.kind == "loguniform" else -math.inf
        is_number = len(self.values) == 2 and all(isinstance(value, int | float) for value in self.values)
        if not is_number or not lowest < self.values[0] < self.values[1] < math.inf:
            raise ConfigError(
                f"a {self.kind} domain has two numbers, the lowest first", value=list(self.values), allowed="[0.001, 0.01]"
            )
        return self


Space = Mapping[str, Domain]


def encoder_space() -> dict[str, Domain]:
    """Attribute encoders: small, so that what decides is how fast and how long they learn."""
    return {
        "learning_rate": Domain(kind="loguniform", values=(3e-4, 1e-2)),
        "dropout": Domain(kind="uniform", values=(0.0, 0.5)),
        "width": Domain(kind="choice", values=(16, 32, 64)),
        "num_layers": Domain(kind="choice", values=(1, 2)),
        "num_buckets": Domain(kind="choice", values=(8, 16, 32)),
        "batch_size": Domain(kind="choice", values=(32, 64, 128)),
    }


def backbone_space() -> dict[str, Domain]:
    """Backbones: width and depth decide the time of an epoch, the rest how much it brings."""
    return {
        "learning_rate": Domain(kind="loguniform", values=(3e-4, 1e-2)),
        "dropout": Domain(kind="uniform", values=(0.0, 0.5)),
        "width": Domain(kind="choice", values=(64, 128, 192)),
        "num_layers": Domain(kind="choice", values=(1, 2, 3)),
        "batch_size": Domain(kind="choice", values=(16, 32, 64)),
    }


def check_space(space: Space, base: RecommendersConfig | None = None, *, is_backbone: bool = False) -> None:
    """Refuses a space whose trials could not all be trained, before any is.

    Args:
        base: what the trials' parameters are put into; without it only each parameter by itself is checked.

    Raises:
        ConfigError: a parameter is unknown, or a value is of another type or out of range.
    """
    for name, domain in space.items():
        if name not in PARAMETERS:
            raise ConfigError("unknown parameter in the search space", value=name, allowed=sorted(PARAMETERS))
        owner = next(kind for kind in (TransformerConfig, FitConfig, RecommendersConfig) if name in kind.setting_names())
        if domain.kind != "choice" and owner.model_fields[name].annotation is not float:
            raise ConfigError(f"{name} has no values between two others", value=domain.kind, allowed="{choice: [16, 32]}")
        for value in domain.values:
            alone = {name: value, "num_heads": 1} if name == "width" else {name: value}
            alone |= {"width": value} if name == "num_heads" else {}
            try:
                owner.model_validate(alone, strict=True)
            except ConfigError as error:
                raise ConfigError(f"the search space has a value that no trial can have: {error}") from None
    if base is not None:
        choices = [[(name, value) for value in space[name].values] for name in ("width", "num_heads") if name in space]
        for together in itertools.product(*choices):
            with_params(base, dict(together), is_backbone=is_backbone)


def with_params(base: RecommendersConfig, params: Mapping[str, Any], *, is_backbone: bool) -> RecommendersConfig:
    """A training's config with one trial's parameters in it.

    Raises:
        ConfigError: a parameter is out of range.
    """
    transformer, fit = ("backbone", "backbone_fit") if is_backbone else ("encoder", "encoder_fit")
    members = {
        transformer: getattr(base, transformer).replaced(**_within(params, _OF_TRANSFORMER)),
        fit: getattr(base, fit).replaced(**_within(params, _OF_FIT)),
    }
    return base.replaced(**members, **_within(params, _OF_BOTH))


def _within(params: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name in names}
