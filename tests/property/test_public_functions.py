"""Whatever is passed to a public function ends in an error of pgmrl's that can be read, or in right rows.

One argument of a call that works is exchanged for a hostile value. Nothing else may be raised, and where an error is,
nothing has been written.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import assume, given
from sqlalchemy import func, select

import pgmrl
from pgmrl.errors import PgmrlError
from tests.property.hostile_values import Hostile, hostile_values
from tests.property.public_calls import CALLS, NOT_CALLED, Place, public, replaceable
from tests.property.small_shop import ROWS, Item, Shop

LONGEST = 700
"""Characters of a message: a page of numbers is none."""


def test_every_public_name_is_tried() -> None:
    """A new function needs a call here."""
    assert {name for name in CALLS if "." not in name} | set(NOT_CALLED) == set(pgmrl.__all__)
    assert not set(CALLS) & set(NOT_CALLED)


def called(name: str, arguments: dict[str, Any]) -> Any:
    """The result of a public function, with the arguments by name."""
    parameters = list(inspect.signature(public(name)).parameters.values())
    last = next((own.name for own in parameters if own.kind is own.VAR_POSITIONAL), None)
    if last is None:
        return public(name)(**arguments)
    values = arguments.pop(last)
    before = [arguments.pop(own.name) for own in parameters if own.kind is own.POSITIONAL_OR_KEYWORD]
    return public(name)(*before, *(values if type(values) is tuple else (values,)), **arguments)


def check_message(error: PgmrlError, argument: str) -> None:
    """One line of ordinary length, which can be printed and sent; of a statement the server shows the place."""
    message = str(error).replace("\n", " ") if argument == "statement" else str(error)
    assert 10 < len(message) <= LONGEST
    assert message.isprintable()


@pytest.mark.parametrize("name", sorted(set(CALLS)))
def test_the_call_works(name: str, hostile_shop: Shop) -> None:
    """As it is: else the tests below would try nothing."""
    with hostile_shop.engine.connect() as connection, connection.begin() as transaction:
        place = Place(hostile_shop, connection)
        arguments = CALLS[name].arguments(place)
        try:
            CALLS[name].check(place, arguments, called(name, dict(arguments)))
        except CALLS[name].raises:
            pass  # of a file that is not there
        transaction.rollback()


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name in sorted(CALLS) for argument in replaceable(name)]
)
def test_hostile_arguments(name: str, argument: str, hostile_shop: Shop) -> None:
    """Each argument by itself."""
    call = CALLS[name]

    @given(value=hostile_values())
    def run(value: Hostile) -> None:
        with connection.begin() as transaction:  # sent to the server with the first statement
            place = Place(hostile_shop, connection)
            arguments = {**call.arguments(place), argument: value.make()}
            assume((name, argument) != ("rerank", "model") or not isinstance(arguments["model"], str))  # of the network
            try:
                call.check(place, arguments, called(name, dict(arguments)))
            except PgmrlError as error:
                check_message(error, argument)
                if "connection" in arguments:
                    assert connection.scalar(select(func.count()).select_from(Item)) == ROWS + 2
            except call.raises:
                pass
            transaction.rollback()

    with hostile_shop.engine.connect() as connection:
        run()
