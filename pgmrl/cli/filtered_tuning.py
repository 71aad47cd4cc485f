"""`pgmrl tune --where`: the filters of a sample of values, and what tuning found for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.cli.output import console, escaped, print_table
from pgmrl.errors import DatabaseError, MeasureError

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Select

    from pgmrl.tune.filtered import FilteredTuning

__all__ = ["FilterValues", "filters_of_options", "print_filtered"]

MOST_VALUES: Final = 50
NAME: Final = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)(?!:)")

FilterValues = Annotated[
    str | None,
    typer.Option(
        "--values-sql",
        metavar="SELECT",
        help="With --where: a SELECT of values for its parameters, by their names; 50 rows at most.",
    ),
]


def filters_of_options(
    connection: Connection, searched: Column[Any], where: str, values: str | None
) -> list[Select[*tuple[Any, ...]]]:
    """A Select of the rows for each value; one where the filter has no parameter.

    Raises:
        BadParameter: parameters without values, or values without parameters.
        DatabaseError: the server refuses the SELECT of values.
        MeasureError: it selects no row, or other names.
    """
    names, keys = set(NAME.findall(where)), select(*searched.table.primary_key.columns)
    if bool(names) != (values is not None):
        raise typer.BadParameter(
            "--where with a parameter, such as tenant_id = :t, takes --values-sql with a column of its name: "
            '"SELECT id AS t FROM tenants ORDER BY random() LIMIT 20"'
        )
    database.leave_pinned(connection)
    if values is None:
        return [keys.where(text(where))]
    try:
        with database.snapshot(connection):
            connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
            rows = database.execute_plain(connection, values).mappings().fetchmany(MOST_VALUES)
    except DBAPIError as error:
        raise DatabaseError(f"--values-sql: {str(error.orig).strip()}") from None
    if not rows or not names <= set(rows[0]):
        found = ", ".join(map(str, rows[0])) if rows else "no row"
        raise MeasureError(f"--values-sql: expected rows with the columns {', '.join(sorted(names))}, got {found}")
    return [keys.where(text(where).bindparams(**{name: row[name] for name in names})) for row in rows]


def print_filtered(tuning: FilteredTuning, where: str) -> None:
    """The shortlist, what it brings, and what ends scans."""
    numbers = f"recall@{tuning.k} {tuning.measured.mean:.3f} ({tuning.measured.low:.3f} to {tuning.measured.high:.3f})"
    times = f"{tuning.p50_ms:.1f} ms (median filter), {tuning.slowest_ms:.1f} ms (slowest)"
    if tuning.shortlist is None:
        longest = max(tuning.exact)
        answer = f"No shortlist up to {longest:,} reaches {tuning.target:g}; searches with it find {numbers}"
        style = "bold yellow"
    else:
        answer, style = f"shortlist={tuning.shortlist}: searches find {numbers}, {times}", "bold"
    console.print(f"[{style}]{escaped(answer)}[/]", soft_wrap=True)
    if tuning.scan_limit is not None:
        console.print(
            f"[yellow]{escaped(f'{tuning.scan_limit.message}: {tuning.scan_limit.remedy}')}[/]", soft_wrap=True
        )
    rows = [(str(size), f"{own.mean:.3f}", f"{own.low:.3f} to {own.high:.3f}") for size, own in tuning.exact.items()]
    near = [row for row, own in zip(rows, tuning.exact.values(), strict=True) if own.mean >= tuning.target - 0.1]
    print_table(("shortlist", "recall", "95 %"), (near or rows[-3:])[:8], title="exact shortlists under the filter")
    console.print(
        f"{tuning.queries:,} queries under {tuning.filters:,} filters: {escaped(where)}; a search takes it as "
        f"search(…, shortlist={tuning.shortlist or max(tuning.exact)})",
        style="dim",
        soft_wrap=True,
    )
