"""Any endpoint that speaks OpenAI's protocol for embeddings: OpenAI, Ollama, vLLM, TEI, Azure and others.

The server and its key come from the environment and from nowhere else: a name in a database cannot send the key, or
the texts, to another server.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np

from pgmrl.embedders.base import layer_normalised, text_list, unit_length
from pgmrl.errors import EmbedderError, EmbedderUnavailable
from pgmrl.model_cards import ModelCard, model_card
from pgmrl.reprs import safe_repr, safe_str

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["OpenAIEmbedder"]

URL_VARIABLE: Final = "OPENAI_BASE_URL"
KEY_VARIABLE: Final = "OPENAI_API_KEY"
DEFAULT_URL: Final = "https://api.openai.com/v1"
TEXT_AT_FAULT: Final = {400, 413, 422}
"""What a server answers to a text, or to too many of them; each other error is the server's or the key's."""
RETRIED: Final = {408, 409, 425, 429}
LONGEST_PAUSE: Final = 5.0  # seconds; for longer the caller decides
_OPTIONS: Final = ("dimensions", "query_prompt", "document_prompt")


class OpenAIEmbedder:
    """A model behind `POST <OPENAI_BASE_URL>/embeddings`, with the key in `OPENAI_API_KEY` where it needs one.

    Attributes:
        name: `openai:<model>` with the options that change its vectors, as `load_embedder` takes it.
        dims: dimensions of the vectors, measured.
        trained_dims: of the model's card in `models.toml`; else empty: the protocol does not say.

    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        normalise: bool | None = None,
        batch_size: int = 64,
        max_characters: int = 200_000,
        timeout: float = 30.0,
        attempts: int = 3,
    ) -> None:
        """Ask the server for one vector.

        Args:
            model: as the server calls it.
            dimensions: that the server is to shorten vectors to. Rarely right: pgmrl makes the short vector.
            query_prompt: prefix of every query; where None, that of the model's card in `models.toml`, if it has one.
            document_prompt: prefix of every document, likewise.
            normalise: scale to unit length; where None, unless the card says otherwise. Not for models whose inner
                product or L2 distance uses the length.
            batch_size: texts in a request.
            max_characters: of all texts in a request that has more than one.
            timeout: seconds for the server's answer.
            attempts: at a request that the server does not answer, or asks to repeat.

        Raises:
            EmbedderError: httpx is not installed, the URL cannot be used, or the model has no vectors.
            EmbedderUnavailable: the server does not answer, or refuses the key.

        """
        self._httpx = _library()
        self._model = model
        self._dimensions = dimensions
        card = model_card(f"openai:{model}") or ModelCard()
        prompts = ((query_prompt, card.query_prompt), (document_prompt, card.document_prompt))
        self._prompts = tuple((known or "") if prompt is None else prompt for prompt, known in prompts)
        self._fields = card.query_fields, card.document_fields
        self._normalise = card.normalise if normalise is None else normalise
        self._layer_norm = card.layer_norm
        self._batch_size = batch_size
        self._max_characters = max_characters
        self._attempts = attempts
        self._url = _base_url()
        self._client = self._httpx.Client(timeout=timeout)  # one pool of connections; redirects are not followed
        given = {"dimensions": dimensions, "query_prompt": query_prompt, "document_prompt": document_prompt}
        options = urlencode({name: value for name, value in given.items() if value is not None})
        self.name: str = f"openai:{model}{f'?{options}' if options else ''}"
        self.dims: int = len(self._request(["a"], self._fields[1])[0])
        self.trained_dims: tuple[int, ...] = card.truncations(self.dims)

    @classmethod
    def of(cls, spec: str) -> OpenAIEmbedder:
        """The model of `<model>?dimensions=256&query_prompt=…`.

        Raises:
            EmbedderError: another option; and as the constructor.

        """
        model, _, query = spec.partition("?")
        options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
        unknown = options.keys() - set(_OPTIONS)
        if unknown or not model:
            raise EmbedderError(
                f"expected openai:<model>?{'&'.join(f'{o}=…' for o in _OPTIONS)}, got {safe_repr(spec)}"
            )
        if "dimensions" in options:
            if not (options["dimensions"].isdecimal() and int(options["dimensions"])):
                raise EmbedderError(f"dimensions: expected a positive whole number, got {safe_repr(spec)}")
            options["dimensions"] = int(options["dimensions"])
        return cls(model, **options)

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self._model!r})"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents; shape (len(texts), dims), float32."""
        return self._embed(texts, self._prompts[1], self._fields[1])

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries; shape (len(texts), dims), float32."""
        return self._embed(texts, self._prompts[0], self._fields[0])

    def _embed(self, texts: Sequence[str], prompt: str, fields: Mapping[str, str]) -> NDArray[np.float32]:
        batches = self._batches([prompt + value for value in text_list(texts)])
        vectors = [vector for batch in batches for vector in self._request(batch, fields)]
        try:
            array = np.array(vectors, np.float32).reshape(len(vectors), -1 if vectors else self.dims)
        except (TypeError, ValueError) as error:
            raise EmbedderError(f"{self.name}: expected vectors of one length from the server: {error}") from None
        if self._layer_norm:
            array = layer_normalised(array)
        return unit_length(array) if self._normalise else array

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for value in texts:
            if batch and (len(batch) == self._batch_size or size + len(value) > self._max_characters):
                yield batch
                batch, size = [], 0
            batch.append(value)
            size += len(value)
        if batch:
            yield batch

    # -- requests --------------------------------------------------------------------------------------------------

    def _request(self, texts: list[str], fields: Mapping[str, str]) -> list[Any]:
        """One vector for each text, in their order."""
        body: dict[str, Any] = {"encoding_format": "float", **fields, "model": self._model, "input": texts}
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        body = {name: value for name, value in body.items() if value != ""}
        for remaining in range(self._attempts - 1, -1, -1):
            try:
                return self._answer(json.dumps(body).encode(), len(texts))
            except EmbedderUnavailable as error:
                pause = error.retry_after if error.retry_after is not None else 0.2 * 2 ** (self._attempts - remaining)
                if not remaining or not error.repeated or pause > LONGEST_PAUSE:
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, body: bytes, count: int) -> list[Any]:
        key = _key()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            response = self._client.post(f"{self._url}/embeddings", content=body, headers=headers)
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise self._unavailable(f"{type(error).__name__}: {error}", key) from None
        if response.status_code in TEXT_AT_FAULT:
            raise EmbedderError(_without_key(f"{self.name}: {response.status_code}: {_said(response)}", key))
        if response.status_code != 200:
            repeated = response.status_code >= 500 or response.status_code in RETRIED
            after = _retry_after(response.headers.get("Retry-After"))
            raise self._unavailable(f"{response.status_code}: {_said(response)}", key, after, repeated=repeated)
        try:
            data = response.json()["data"]
            vectors = {item["index"]: item["embedding"] for item in data}
            if len(data) != count:  # of two vectors for one text nobody knows which is right
                raise ValueError
            return [vectors[place] for place in range(count)]
        except (ValueError, LookupError, TypeError):
            message = f"expected {count} vectors with their index, got {safe_repr(response.text)[:200]}"
            raise self._unavailable(message, key) from None

    def _unavailable(
        self, message: str, key: str, after: float | None = None, *, repeated: bool = True
    ) -> EmbedderUnavailable:
        error = EmbedderUnavailable(_without_key(f"{self.name}: {message}", key))
        error.retry_after, error.repeated = after, repeated
        return error


def _library() -> Any:
    try:
        return importlib.import_module("httpx")
    except ImportError as error:
        raise EmbedderError(
            f"a model behind HTTP needs {error.name or 'httpx'}: install it with: pip install 'pgmrl[openai]'"
        ) from error


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):  # no header can have it, and a library would log that with it
        raise EmbedderError(f"{KEY_VARIABLE}: expected a key of printable ASCII characters")
    return key


def _base_url() -> str:
    url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "@" in parts.netloc:
        # not the URL: a key or a password may be in it
        raise EmbedderError(
            f"{URL_VARIABLE}: expected a URL such as {DEFAULT_URL}, without a user, a password or a query"
        )
    return url.rstrip("/")


def _said(response: Any) -> str:
    """What the server says of an error, in its own words."""
    try:
        said = response.json()["error"]
        message = said["message"] if isinstance(said, dict) else said
    except (ValueError, LookupError, TypeError):
        message = response.text
    return safe_str(message).strip()[:300] or "no message"


def _retry_after(value: str | None) -> float | None:
    """Seconds of the header, which has a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), 3600.0)


def _without_key(message: str, key: str) -> str:
    return message.replace(key, "***") if key else message
