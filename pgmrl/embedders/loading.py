"""The embedder of a name, as the command line takes it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from pgmrl.embedders.base import Embedder
from pgmrl.errors import EmbedderError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["DEFAULT", "load_embedder"]

DEFAULT: Final = "static"

_FORMS: Final = (
    "`static`, `sentence-transformers:<model name or folder>`, `openai:<model>` or `package.module:attribute`"
)
_MEMBERS: Final = ("name", "dims", "trained_dims", "embed_documents", "embed_queries")


def load_embedder(spec: str = DEFAULT) -> Embedder:
    """Load an embedder by its name.

    Args:
        spec: one of

            - `static`: the bundled model, see `pgmrl.embedders.static`;
            - `sentence-transformers:<model>`: a name on the Hugging Face hub or a folder, with options behind it
              (`?dtype=float16`), see `pgmrl.embedders.sentence_transformers`;
            - `openai:<model>`: of an endpoint that speaks OpenAI's protocol, see `pgmrl.embedders.openai_http`;
            - `package.module:attribute`: an `Embedder` of the user's own, or a class or function that returns one
              when called without arguments.

            The `name` of an embedder loaded by one of the first three forms can be passed again.

    Raises:
        EmbedderError: unknown form, an extra or a module that is not installed, a model that cannot be loaded,
            an attribute that is not an `Embedder`.

    """
    scheme, colon, rest = spec.partition(":")
    if scheme == "static" and rest in {"", "l2_supercat_256"}:
        from pgmrl.embedders.static import StaticEmbedder  # noqa: PLC0415 - only its users need the extra

        return StaticEmbedder()
    if scheme == "sentence-transformers" and rest:
        from pgmrl.embedders.sentence_transformers import SentenceTransformersEmbedder  # noqa: PLC0415

        return SentenceTransformersEmbedder.of(rest)
    if scheme == "openai" and rest:
        from pgmrl.embedders.openai_http import OpenAIEmbedder  # noqa: PLC0415

        return OpenAIEmbedder.of(rest)
    if (
        colon
        and scheme not in {"static", "openai"}
        and rest.isidentifier()
        and all(part.isidentifier() for part in scheme.split("."))
    ):
        return _load_attribute(scheme, rest)
    raise EmbedderError(f"expected {_FORMS}, got the embedder {safe_repr(spec)}")


def _load_attribute(module_name: str, attribute: str) -> Embedder:
    spec = f"{module_name}:{attribute}"
    try:
        value = getattr(_import(module_name), attribute)
    except AttributeError:
        raise EmbedderError(f"embedder {spec}: {module_name} has no attribute {safe_repr(attribute)}") from None
    # a class has the members of its instances, so isinstance alone would take it for an embedder
    if isinstance(value, type) or (callable(value) and not isinstance(value, Embedder)):
        value = _call(value, spec)
    return _validate(value, spec)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise EmbedderError(
                f"there is no module {safe_repr(missing)}: expected {_FORMS}; install the module, or run in its folder"
            ) from None
        raise EmbedderError(f"importing {name} needs {safe_repr(missing)}, which is not installed") from error
    except Exception as error:  # user code
        raise EmbedderError(f"importing {name} failed: {type(error).__name__}: {error}") from error


def _call(factory: Any, spec: str) -> Any:
    try:
        return factory()
    except EmbedderError:
        raise
    except Exception as error:  # user code
        raise EmbedderError(f"embedder {spec}: calling it failed: {type(error).__name__}: {error}") from error


def _validate(value: Any, spec: str) -> Embedder:
    missing = [member for member in _MEMBERS if not hasattr(value, member)]
    if missing:
        expected, kind = ", ".join(_MEMBERS), type(value).__name__
        raise EmbedderError(f"embedder {spec}: expected {expected}, got a {kind} without {', '.join(missing)}")
    _check_dims(value, spec)
    loaded: Embedder = value
    return loaded


def _check_dims(value: Any, spec: str) -> None:
    dims, trained = value.dims, tuple(value.trained_dims)
    if not isinstance(dims, int) or dims < 1:
        raise EmbedderError(f"embedder {spec}: expected a positive whole number as dims, got {safe_repr(dims)}")
    if trained != tuple(sorted(trained)) or any(not 0 < number <= dims for number in trained):
        raise EmbedderError(
            f"embedder {spec}: expected trained_dims in ascending order, from 1 to {dims}, got {trained}"
        )
