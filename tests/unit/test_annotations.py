"""The annotations of searches can be read at runtime, as tools that check or inject arguments do."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select

from pgmrl import search, search_diverse, search_funnel, search_groups, search_many


@pytest.mark.parametrize("function", [search, search_many, search_groups, search_diverse, search_funnel])
def test_type_hints(function: Callable[..., Any]) -> None:
    """Also with SQLAlchemy 2.0, whose Select takes one type and not one for each column."""
    hints = typing.get_type_hints(function)
    assert (typing.get_origin(hints["return"]) or hints["return"]) is Select
    assert {"statement", "column"} <= hints.keys()
