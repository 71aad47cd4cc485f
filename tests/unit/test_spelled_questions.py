"""What a worker reads of advisory locks: a whole question, or nothing."""

from __future__ import annotations

import hashlib

import pytest

from pgmrl.functions.question_worker import _spelled


def pieces(message: bytes) -> list[int]:
    """As `pgmrl.ask_v1` spells it."""
    padded = message + b"\0" * (-len(message) % 4)
    begin = int.from_bytes(hashlib.sha256(message).digest()[:4], "big")
    return [7, len(message), begin, *(int.from_bytes(padded[n : n + 4], "big") for n in range(0, len(padded), 4))]


@pytest.mark.parametrize("words", ["a", "game", "games", "trains 日本 🚂", "é" * 500])
def test_a_question(words: str) -> None:
    """Of any length, in any script."""
    locks = pieces(words.encode())
    assert _spelled(range(len(locks)), locks) == words


def test_what_is_no_question() -> None:
    """Some of its locks, one too many, other bytes, another length, none."""
    locks = pieces(b"game with trains")
    whole = list(range(len(locks)))
    assert _spelled(whole[:-1], locks[:-1]) is None
    assert _spelled(whole[:3], locks[:3]) is None
    assert _spelled([*whole[:-1], whole[-1] + 1], locks) is None
    assert _spelled([*whole, len(whole)], [*locks, 0]) is None
    assert _spelled(whole, [*locks[:-1], locks[-1] ^ 1]) is None
    assert _spelled(whole, [locks[0], 2**32 - 1, *locks[2:]]) is None
    assert _spelled(whole, [locks[0], 0, *locks[2:]]) is None
    assert _spelled([], []) is None


def test_bytes_that_are_no_text() -> None:
    """Somebody's own locks: a text with a sign in their place, never an error."""
    locks = pieces(b"\xff\xfe\x00a")
    assert _spelled(range(len(locks)), locks) == "\ufffd\ufffd\0a"
