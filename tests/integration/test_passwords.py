"""A password is in no message, log, repr or process list, however the URL is written and whatever is wrong with it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, make_url

from pgmrl import database, local
from pgmrl.errors import Unreachable
from pgmrl.local.programs import import_extra
from pgmrl.urls import connection_options, display_url, engine_arguments, libpq_url, masked
from tests.cli import failed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECRET = "Tr0ub4dor"  # noqa: S105 - a test's
"""No URL may show it, nor what is left of it when it is cut at a special character."""

# nothing listens at port 1
UNDERSTOOD = {
    "libpq": f"postgresql://app:{SECRET}@127.0.0.1:1/app",
    "postgres": f"postgres://app:{SECRET}@127.0.0.1:1/app",
    "sqlalchemy": f"postgresql+psycopg://app:{SECRET}@127.0.0.1:1/app",
    "asyncpg": f"postgresql+asyncpg://app:{SECRET}@127.0.0.1:1/app",
    "option": f"postgresql://127.0.0.1:1/app?user=app&password={SECRET}",
    "sqlalchemy option": f"postgresql+psycopg://127.0.0.1:1/app?user=app&password={SECRET}",
    "space before": f"  postgresql://app:{SECRET}@127.0.0.1:1/app",
    "newline behind": f"postgresql://app:{SECRET}@127.0.0.1:1/app\n",
    "percent": f"postgresql://app:%54{SECRET[1:]}@127.0.0.1:1/app",
    "special characters": f"postgresql://app:%40%2F{SECRET}%3A%3F%25@127.0.0.1:1/app",
    "colon": f"postgresql://app:x:{SECRET}@127.0.0.1:1/app",
    "number sign": f"postgresql://app:x#{SECRET}@127.0.0.1:1/app",
    "question mark": f"postgresql://app:x?{SECRET}@127.0.0.1:1/app",
    "space inside": f"postgresql://app:x {SECRET}@127.0.0.1:1/app",
    "no user": f"postgresql://:{SECRET}@127.0.0.1:1/app",
    "hosts": f"postgresql://app:{SECRET}@127.0.0.1:1,127.0.0.2:1/app",
    "hosts and one port": f"postgresql://app:{SECRET}@/app?host=127.0.0.1,127.0.0.2&port=1",
    "sqlalchemy hosts": f"postgresql+psycopg://app:{SECRET}@/app?host=127.0.0.1:1&host=127.0.0.2:1",
    "IPv6": f"postgresql://app:{SECRET}@[::1]:1/app",
    "socket": f"postgresql://app:{SECRET}@%2Fnowhere:1/app",
    "socket option": f"postgresql:///app?host=/nowhere&port=1&user=app&password={SECRET}",
    "key's password": f"postgresql://app@127.0.0.1:1/app?sslpassword={SECRET}&sslcert=/nowhere",
    "OAuth": f"postgresql://app@127.0.0.1:1/app?oauth_client_id=app&oauth_client_secret={SECRET}",
    "service": f"postgresql://app:{SECRET}@127.0.0.1:1/app?service=nowhere",
    "wrong option's value": f"postgresql://app:{SECRET}@127.0.0.1:1/app?sslmode=mandatory",
    "wrong timeout": f"postgresql://app:{SECRET}@127.0.0.1:1/app?connect_timeout=never",
}
MALFORMED = {
    "words": f"host=127.0.0.1 port=1 user=app password={SECRET}",
    "no colon": f"postgres//app:{SECRET}@127.0.0.1:1/app",
    "one slash": f"postgresql:/app:{SECRET}@127.0.0.1:1/app",
    "no scheme": f"app:{SECRET}@127.0.0.1:1/app",
    "another database": f"mysql://app:{SECRET}@127.0.0.1:1/app",
    "JDBC": f"jdbc:postgresql://127.0.0.1:1/app?user=app&password={SECRET}",
    "quoted": f'"postgresql://app:{SECRET}@127.0.0.1:1/app"',
    "at": f"postgresql://app:x@{SECRET}@127.0.0.1:1/app",
    "sqlalchemy at": f"postgresql+psycopg://app:x@{SECRET}@127.0.0.1:1/app",
    "slash": f"postgresql://app:x/{SECRET}@127.0.0.1:1/app",
    "number and slash": f"postgresql://app:1/{SECRET}@127.0.0.1:1/app",
    "sqlalchemy slash": f"postgresql+psycopg://app:x/{SECRET}@127.0.0.1:1/app",
    "at in an option": f"postgresql://127.0.0.1:1/app?user=app&password=x@{SECRET}",
    "ampersand in an option": f"postgresql://127.0.0.1:1/app?user=app&password=x&{SECRET}",
    "no such option": f"postgresql://app@127.0.0.1:1/app?{SECRET}=1",
    "no such sqlalchemy option": f"postgresql+psycopg://app@127.0.0.1:1/app?{SECRET}=1",
    "wrong percent": f"postgresql://app:{SECRET}%zz@127.0.0.1:1/app",
    "percent zero": f"postgresql://app:{SECRET}%00@127.0.0.1:1/app",
    "sqlalchemy percent zero": f"postgresql+psycopg://app:{SECRET}%00@127.0.0.1:1/app",
    "no host": f"postgresql://app:{SECRET}",
    "sqlalchemy without a host": f"postgresql+psycopg://app:{SECRET}",
    "port": f"postgresql://app@127.0.0.1:{SECRET}/app",
    "large port": f"postgresql://app:{SECRET}@127.0.0.1:99999/app",
    "line inside": f"postgresql://app:x\n{SECRET}@127.0.0.1:1/app",
    "half a character": f"postgresql://app:{SECRET}\ud800@127.0.0.1:1/app",
    "zero": f"postgresql://app:{SECRET}\0@127.0.0.1:1/app",
}
ARGUMENTS = [name for name, url in (MALFORMED | UNDERSTOOD).items() if "\0" not in url and "\ud800" not in url]
"""Those that an argument and an environment can hold."""


def shows(text: str) -> bool:
    """Whether it shows the password, as it is or as the URL has it."""
    return SECRET[1:].lower() in text.lower()


@pytest.mark.parametrize("form", UNDERSTOOD)
def test_a_server_that_does_not_answer(form: str, caplog: pytest.LogCaptureFixture) -> None:
    """The error says which server, with whatever the driver said; neither a traceback nor a log has the password."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unreachable, match=r"^cannot reach postgresql://") as caught, database.connect(UNDERSTOOD[form]):
        pass
    assert not shows("".join(traceback.format_exception(caught.value)))
    assert not shows(repr(caught.value))
    assert not shows(caplog.text)


@pytest.mark.parametrize("form", MALFORMED)
def test_a_malformed_url(form: str) -> None:
    """One error of the same form, whoever reads the URL; no part of it is repeated, and no cause has it."""
    url = MALFORMED[form]
    calls: list[tuple[str, Callable[[], object]]] = [
        ("the database URL", lambda: database.sqlalchemy_url(url)),
        ("the database URL", lambda: ExitStack().enter_context(database.connect(url))),
        ("DATABASE_URL", lambda: local.database_url({"DATABASE_URL": url})),
    ]
    for what, call in calls:
        with pytest.raises(Unreachable, match=f"^{what} is not of the form postgresql://user:p") as caught:
            call()
        assert not shows("".join(traceback.format_exception(caught.value)))
        assert "127.0.0.1" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


@pytest.mark.parametrize("given", [None, 5, b"postgresql://h/d", ["postgresql://h/d"], make_url("postgresql://h/d")])
def test_what_is_no_text(given: object) -> None:
    """It is refused like a malformed one."""
    with pytest.raises(Unreachable, match="is not of the form"):
        database.sqlalchemy_url(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", UNDERSTOOD)
def test_all_forms_mean_the_same_to_everybody(form: str) -> None:
    """What libpq or SQLAlchemy reads in a URL is what pgmrl hands on to both, and its Engine shows no secret."""
    url = UNDERSTOOD[form].strip().replace(" ", "%20")
    options = connection_options(UNDERSTOOD[form])
    if "+" not in url.partition("://")[0] and "host=127" not in url:
        assert options == conninfo_to_dict(url)
    assert shows(repr(options))
    assert connection_options(database.sqlalchemy_url(url)) == options
    assert connection_options(libpq_url(options)) == options
    assert local.database_url({"DATABASE_URL": url}) == libpq_url(options)
    address, arguments = engine_arguments(options)
    engine = create_engine(address, connect_args=arguments)
    _, given = engine.dialect.create_connect_args(engine.url)
    sent = {name: str(value) for name, value in {**given, **arguments}.items() if name != "context"}
    assert sent == options
    assert not shows(repr(engine))
    assert not shows(display_url(options))
    assert not shows(masked(f"what a driver might say of {SECRET}", {"password": SECRET}))


@pytest.mark.parametrize("form", ARGUMENTS)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str, by: str
) -> None:
    """One error, exit code 1."""
    url = (MALFORMED | UNDERSTOOD)[form]
    if by == "environment":
        monkeypatch.setenv("DATABASE_URL", url)
    given = ["--database-url", url] if by == "option" else []
    said = failed(capsys, monkeypatch, "columns", "--json", *given)
    assert ("cannot reach" if form in UNDERSTOOD else "is not of the form") in said
    assert not shows(said)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "pgmrl.cli", *arguments]
    return subprocess.run(  # noqa: S603 - ours
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("form", ["option", "words", "at", "port"])
def test_a_process_of_its_own(form: str) -> None:
    """The same where nothing of the test's is around it."""
    url = (MALFORMED | UNDERSTOOD)[form]
    for done in (run("doctor", "--database-url", url), run("doctor", "--nagios", DATABASE_URL=url)):
        assert done.returncode in {1, 3}
        assert "Traceback" not in done.stderr
        assert not shows(done.stdout + done.stderr)
        assert "not of the form" in done.stdout + done.stderr or "cannot reach" in done.stdout + done.stderr


def test_an_unexpected_error_shows_no_variables(tmp_path: Path) -> None:
    """A traceback of a fault of ours is Python's own: one with the values of variables would show the URL."""
    code = (
        "import sys; from pgmrl import cli; from pgmrl.cli import columns; columns.open_engine = 5; "
        "sys.argv = ['pgmrl', 'columns', '--database-url', sys.stdin.read()]; cli.main()"
    )
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", code],
        input=UNDERSTOOD["libpq"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "TypeError: 'int' object is not callable" in done.stderr
    assert not shows(done.stderr)


def arguments_of_all() -> Mapping[int, str]:
    """The command line of every process that may be looked at."""
    lines, psutil = {}, import_extra("psutil")
    for process in psutil.process_iter():
        try:
            lines[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return lines


def test_the_process_list(database_url: str, tmp_path: Path) -> None:
    """With the URL in the environment, no process that a command starts has it among its arguments."""
    options = connection_options(database_url) | {"password": SECRET}
    code = "import sys; from pgmrl import cli; print('ready', flush=True); sys.stdin.readline(); cli.main()"
    command = [sys.executable, "-c", code, "doctor"]
    environment = os.environ | {"DATABASE_URL": libpq_url(options)}
    with subprocess.Popen(  # noqa: S603 - ours
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        seen: list[Mapping[int, str]] = []
        while process.poll() is None:
            seen.append(arguments_of_all())
        assert process.returncode in {0, 10, 20}
    assert any(process.pid in lines for lines in seen)
    assert not any(shows(line) for lines in seen for line in lines.values())


def test_a_connection_has_what_the_url_says(database_url: str) -> None:
    """The password, too, from each place it can stand in, and a file or a service beside it."""
    options = connection_options(database_url)
    quoted = {"password": "a@/:?#%& +b", **options}
    plain = libpq_url(quoted)
    for url in (plain, database.sqlalchemy_url(plain), f"{libpq_url(options)}&password=a%40%2F%3A%3F%23%25%26%20%2Bb"):
        with database.connect(url) as engine, engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            assert driver.info.password == quoted["password"]
            assert driver.info.dbname == options["dbname"]
