"""Sentence embeddings of items' texts, by a model that lies in a local folder. No torch here until one is loaded.

The optional extra `text` brings sentence-transformers. Embeddings are stored with the encoder that was trained on them:
serving needs neither the extra nor the folder.

Shape suffixes: N texts, E the embeddings' width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError

from toolrec.errors import ConfigError
from toolrec.util.progress import track

BLOCK_TEXTS = 256


class TextEncoder(Protocol):
    """What turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text, float32 `[N, E]`."""
        ...


class SentenceEncoder:
    """A sentence-transformers model of a local folder; nothing is downloaded, and no code of the folder is run.

    Raises:
        ConfigError: the extra is not installed, or the folder is no such model.
    """

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        if not (folder / "modules.json").is_file():
            raise ConfigError(
                "no sentence-embedding model here",
                value=str(folder),
                allowed="a folder with modules.json, as sentence-transformers saves it",
                hint="download one where there is a network, and give its folder",
            )
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ConfigError(
                "texts need sentence-transformers, which is not installed", hint="pip install 'toolrec[text]'"
            ) from None
        try:
            self._model = SentenceTransformer(
                str(folder), device=device, local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
            raise ConfigError(f"the sentence-embedding model cannot be loaded ({error})", value=str(folder)) from None

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text, float32 `[N, E]`."""
        embedding_NE = self._model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(embedding_NE, dtype=np.float32)


def embed_texts(texts: Sequence[str], encoder: TextEncoder) -> np.ndarray:
    """Embeds every text, equal ones once.

    Raises:
        ConfigError: there is no text, or the encoder gave something else than one finite vector a text.
    """
    distinct = sorted(set(texts))
    if not distinct:
        raise ConfigError("no item has a text to embed")
    blocks = []
    with track("text embeddings", total=len(distinct), unit="texts") as bar:
        for start in range(0, len(distinct), BLOCK_TEXTS):
            block = distinct[start : start + BLOCK_TEXTS]
            embedding_NE = np.asarray(encoder.embed(block), dtype=np.float32)
            if embedding_NE.ndim != 2 or len(embedding_NE) != len(block) or not np.isfinite(embedding_NE).all():
                raise ConfigError(
                    "the text encoder did not give one finite vector a text",
                    value=str(embedding_NE.shape),
                    allowed=f"({len(block)}, width)",
                )
            blocks.append(embedding_NE)
            bar.advance(len(block))
    place_of = {text: place for place, text in enumerate(distinct)}
    embedding_NE = np.concatenate(blocks)
    return embedding_NE[[place_of[text] for text in texts]]
