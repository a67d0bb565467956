"""What learned fusions are made of: the tools, the neighbours beside them, and features of the training split. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolrec.data import Dataset
from toolrec.recommenders.fusion.candidates import CandidateSource
from toolrec.recommenders.fusion.item_tables import ItemTables, item_tables
from toolrec.recommenders.fusion.neighbours import Neighbours
from toolrec.recommenders.fusion.ranker_features import RankerFeatures
from toolrec.recommenders.fusion.visible_features import VisibleFeatures
from toolrec.recommenders.scoring import ScoringRecommender

POPULARITY = "popularity"


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionInputs:
    """What learned fusions share.

    Args:
        tools: the backbone and the attribute tools' recommenders by name, in the folder's order.
        tables: of the training split.
        source: candidates of the tools and, last, of the neighbours.
        maker: the ranker's features over the same members.
        visible: the tools ranker's features.
    """

    tools: Mapping[str, ScoringRecommender]
    tables: ItemTables
    source: CandidateSource
    maker: RankerFeatures
    visible: VisibleFeatures


def fusion_inputs(dataset: Dataset, recommenders: Mapping[str, ScoringRecommender]) -> FusionInputs:
    """Counts the training split and puts the members together; popularity is a feature, not a tool."""
    tools = {name: recommender for name, recommender in recommenders.items() if name != POPULARITY}
    tables = item_tables(dataset.train_sequences(), num_items=dataset.num_items)
    members = [*tools.values(), Neighbours(tables)]
    maker = RankerFeatures([member.name for member in members], tables, dataset.pool)
    return FusionInputs(
        tools=tools,
        tables=tables,
        source=CandidateSource(members),
        maker=maker,
        visible=VisibleFeatures(list(tools), dataset.pool),
    )
