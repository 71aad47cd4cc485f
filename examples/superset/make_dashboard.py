"""Make the dashboard of docs/sql-text.md in an Apache Superset, over its API: a text box, a filter, a table, a chart.

    python make_dashboard.py http://localhost:8088 admin PASSWORD postgresql://analyst@host/database

Nothing besides Python's own library is needed. The database is one in which `pgmrl demo` has run.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SQL = Path(__file__).with_name("dashboard.sql")
FIRST_WORDS = "the difference between two dates"


class Superset:
    """Its API.

    Args:
        address: such as http://localhost:8088.
        user: who may make databases and dashboards.
        password: the user's.
    """

    def __init__(self, address: str, user: str, password: str) -> None:
        self.address = address.rstrip("/")
        self.headers = {"Content-Type": "application/json", "Referer": self.address}
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        login = {"username": user, "password": password, "provider": "db"}
        self.headers["Authorization"] = f"Bearer {self.call('POST', 'security/login', login)['access_token']}"
        self.headers["X-CSRFToken"] = self.call("GET", "security/csrf_token/")["result"]

    def call(self, method: str, place: str, document: dict[str, Any] | None = None) -> Any:
        """What it answers; a refusal of its is printed."""
        sent = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{self.address}/api/v1/{place}", sent, self.headers, method=method)  # noqa: S310
        try:
            with self.opener.open(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {place}: {error}: {error.read().decode(errors='replace')}")

    def make(self, kind: str, **document: Any) -> int:
        """Make a database, dataset, chart or dashboard; its number."""
        return int(self.call("POST", f"{kind}/", document)["id"])


def text_box(number: str, title: str, dataset: int, column: str, value: str | None) -> dict[str, Any]:
    """A filter of the dashboard with one value, from a list or typed."""
    mask: dict[str, Any] = {"extraFormData": {}, "filterState": {}}
    if value is not None:
        mask = {
            "extraFormData": {"filters": [{"col": column, "op": "IN", "val": [value]}]},
            "filterState": {"value": [value], "label": value},
        }
    return {
        "id": f"NATIVE_FILTER-{number}",
        "type": "NATIVE_FILTER",
        "name": title,
        "filterType": "filter_select",
        "targets": [{"datasetId": dataset, "column": {"name": column}}],
        "controlValues": {"multiSelect": False, "creatable": True, "enableEmptyFilter": False},
        "defaultDataMask": mask,
        "cascadeParentIds": [],
        "scope": {"rootPath": ["ROOT_ID"], "excluded": []},
    }


def layout(charts: list[tuple[int, str, int]], height: int = 62) -> dict[str, Any]:
    """The charts beside each other, each with its number, title and width in twelfths."""
    parts: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": ["ROW-1"], "parents": ["ROOT_ID"]},
        "ROW-1": {
            "type": "ROW",
            "id": "ROW-1",
            "children": [f"CHART-{number}" for number, _, _ in charts],
            "parents": ["ROOT_ID", "GRID_ID"],
            "meta": {"background": "BACKGROUND_TRANSPARENT"},
        },
    }
    for number, title, width in charts:
        parts[f"CHART-{number}"] = {
            "type": "CHART",
            "id": f"CHART-{number}",
            "children": [],
            "parents": ["ROOT_ID", "GRID_ID", "ROW-1"],
            "meta": {"chartId": number, "sliceName": title, "width": width, "height": height},
        }
    return parts


def make_dashboard(superset: Superset, database_url: str) -> str:
    """Make everything; the dashboard's address."""
    database = superset.make("database", database_name="pgmrl", sqlalchemy_uri=database_url, expose_in_sqllab=True)
    hits = superset.make("dataset", database=database, table_name="docstrings by words", sql=SQL.read_text())
    rows = superset.make("dataset", database=database, schema="pgmrl_demo", table_name="docstrings")
    table = {
        "viz_type": "table",
        "query_mode": "raw",
        "all_columns": ["rank", "similarity", "name", "kind", "summary"],
        "order_by_cols": ['["rank", true]'],
        "row_limit": 1000,
        "show_cell_bars": False,
    }
    hits_by_package = {
        "viz_type": "echarts_timeseries_bar",
        "x_axis": "package",
        "metrics": [{"expressionType": "SQL", "sqlExpression": "count(*)", "label": "hits"}],
        "groupby": [],
        "orientation": "horizontal",
        "x_axis_sort": "hits",
        "x_axis_sort_asc": True,
        "row_limit": 12,
        "show_legend": False,
        "show_value": True,
    }
    charts = []
    for title, width, form in (("Nearest to the words", 8, table), ("Hits by package", 4, hits_by_package)):
        form |= {"datasource": f"{hits}__table"}
        number = superset.make(
            "chart",
            slice_name=title,
            datasource_id=hits,
            datasource_type="table",
            viz_type=form["viz_type"],
            params=json.dumps(form),
        )
        charts.append((number, title, width))
    filters = [
        text_box("words", "Words", hits, "words", FIRST_WORDS),
        text_box("kind", "Kind", rows, "kind", None),
    ]
    dashboard = superset.make(
        "dashboard",
        dashboard_title="Python's documentation, by meaning",
        slug="pgmrl",
        published=True,
        json_metadata=json.dumps(
            {
                "native_filter_configuration": filters,
                "filter_bar_orientation": "HORIZONTAL",
                "positions": layout(charts),
            }
        ),
        position_json=json.dumps(layout(charts)),
    )
    for number, _, _ in charts:
        superset.call("PUT", f"chart/{number}", {"dashboards": [dashboard]})
    return f"{superset.address}/superset/dashboard/pgmrl/"


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    print(make_dashboard(Superset(*sys.argv[1:4]), sys.argv[4]))
