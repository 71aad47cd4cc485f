"""What is known of models beyond their files: `models.toml`, and a file of the user's own."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pgmrl.errors import EmbedderError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MODELS_VARIABLE", "ModelCard", "model_card", "truncation_advice"]

MODELS_VARIABLE: Final = "PGMRL_MODELS"
_PACKAGED: Final = Path(__file__).parent / "models.toml"
_TYPES: Final = {
    "dims": int, "trained_dims": list, "trained_from": int, "layer_norm": bool, "normalise": bool, "query_prompt": str,
    "document_prompt": str, "query_fields": dict, "document_fields": dict, "source": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model needs besides its files.

    Attributes:
        dims: of a full vector; None where that is not known.
        trained_dims: truncations it was trained for, ascending; empty where they are not known.
        trained_from: the shortest truncation, where it was trained for every length.
        layer_norm: whether layer normalization over the full dimensions comes before truncation.
        normalise: whether vectors are scaled to unit length.
        query_prompt: prefix of a query; None where the model's files have it, if there is one.
        document_prompt: prefix of a document, likewise.
        query_fields: of a request over HTTP for queries, besides the protocol's own; "" leaves one of those out.
        document_fields: for documents, likewise.
        source: the page that says so.
    """

    dims: int | None = None
    trained_dims: tuple[int, ...] = ()
    trained_from: int | None = None
    layer_norm: bool = False
    normalise: bool = True
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_fields: Mapping[str, str] = field(default_factory=dict)
    document_fields: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def truncations(self, dims: int) -> tuple[int, ...]:
        """The truncations to prefer, ascending; of a model that was trained for every length, powers of two.

        Args:
            dims: of the full vector.
        """
        if self.trained_from is None:
            return tuple(number for number in self.trained_dims if number <= dims)
        powers = {2**power for power in range(16) if self.trained_from <= 2**power < dims}
        return tuple(sorted({*powers, min(self.trained_from, dims), dims}))


def model_card(spec: str) -> ModelCard | None:
    """The card of a model; None where neither file has it.

    Args:
        spec: as `load_embedder` takes it; options are not looked at.

    Raises:
        EmbedderError: the user's file is not there, or has a card that cannot be read.
    """
    name = spec.partition("?")[0].partition(" (")[0]
    own = os.environ.get(MODELS_VARIABLE)
    cards = _cards(_PACKAGED, _PACKAGED.stat().st_mtime_ns)
    if own:
        try:
            modified = Path(own).stat().st_mtime_ns
        except OSError as error:
            raise EmbedderError(f"{MODELS_VARIABLE}={own}: {error.strerror}") from None
        cards = cards | _cards(Path(own), modified)
    return cards.get(name)


@lru_cache(maxsize=4)
def _cards(path: Path, _modified: int) -> dict[str, ModelCard]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EmbedderError(f"{path}: {error}") from None
    return {name: _card(path, name, values) for name, values in tables.items()}


def _card(path: Path, name: str, values: Any) -> ModelCard:
    place = f"{path}: {safe_repr(name)}"
    if not isinstance(values, dict):
        raise EmbedderError(f'{place}: expected a table, ["openai:model"] with lines below it, got {safe_repr(values)}')
    for key, value in values.items():
        if key not in _TYPES:
            raise EmbedderError(f"{place}: expected some of {', '.join(_TYPES)}, got {safe_repr(key)}")
        if type(value) is not _TYPES[key]:
            raise EmbedderError(f"{place}: {key}: expected {_TYPES[key].__name__}, got {safe_repr(value)}")
    fields = [value for key in ("query_fields", "document_fields") for value in values.get(key, {}).values()]
    if not all(isinstance(value, str) for value in fields):
        raise EmbedderError(f"{place}: expected texts as fields of a request, got {safe_repr(fields)}")
    dims, trained = values.get("dims"), values.get("trained_dims", [])
    numbers = [*trained, *(values[key] for key in ("dims", "trained_from") if key in values)]
    if any(type(number) is not int or not 0 < number <= (dims or number) for number in numbers):
        raise EmbedderError(f"{place}: expected numbers of dimensions from 1 to dims, got {safe_repr(numbers)}")
    if (":" not in name and name != "static") or "?" in name:
        raise EmbedderError(f"{place}: expected a model's name without options, static or openai:model")
    return ModelCard(**{**values, "trained_dims": tuple(sorted(set(trained)))})


def truncation_advice(spec: str, dims: int, full_dims: int) -> str | None:
    """What to say of a prefix that a model was not trained for; None where it was, or nobody knows.

    Args:
        spec: the model.
        dims: of the short vector.
        full_dims: of the full one.

    Raises:
        EmbedderError: as `model_card`.
    """
    card = model_card(spec)
    trained = card.truncations(full_dims) if card is not None else ()
    if not trained or dims in trained or (card is not None and card.trained_from is not None and dims >= trained[0]):
        return None
    return (
        f"{spec} was trained for truncation to {', '.join(map(str, trained))} dimensions, not to {dims}: take one of "
        "those, or a rotation that is learned from the vectors (`pgmrl fit-rotation`), which keeps more"
    )
