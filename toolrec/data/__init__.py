"""Data sets: from the files that people have to one Parquet folder with pool, histories and leave-one-out split."""

from toolrec.data.dataset import Dataset, Split, load_dataset
from toolrec.data.pool import AttributeKind, AttributeSpec, DomainWords, Pool

__all__ = ["AttributeKind", "AttributeSpec", "Dataset", "DomainWords", "Pool", "Split", "load_dataset"]
