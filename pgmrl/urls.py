"""URLs of databases, in libpq's form and in SQLAlchemy's. Whatever is wrong with one, no message repeats it.

libpq and SQLAlchemy tell the part of a URL that they stumble over, and where a password holds an @ or a / that part is
the password. So both only parse here, and what they say is left out.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import ArgumentError

from pgmrl.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["connection_options", "display_url", "engine_arguments", "libpq_url", "masked", "sqlalchemy_url"]

SCHEME: Final = re.compile(r"(?:postgresql|postgres)(?:\+(?P<driver>\w+))?://(?P<rest>.*)", re.DOTALL)
FORM: Final = "postgresql://user:password@host:5432/database"
SECRETS: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
SHOWN: Final = ("user", "host", "hostaddr", "port", "dbname", "service")
MASKED_LENGTH: Final = 4  # a shorter secret is in half of all words


def connection_options(url: Any, what: str = "the database URL") -> dict[str, str]:
    """A URL as libpq's connection options: host, port, dbname, user and so on.

    `postgresql+driver://` is read as SQLAlchemy reads it, `postgresql://` and `postgres://` as libpq does.

    Args:
        url: the URL; space around it does not count.
        what: how an error names it.

    Raises:
        Unreachable: it is no PostgreSQL URL; the message does not repeat it, since it may hold a password.
    """
    scheme = SCHEME.fullmatch(url.strip()) if isinstance(url, str) else None
    if scheme is None:
        raise _malformed(what, "it does not begin with postgresql://")
    rest = scheme["rest"].replace(" ", "%20")  # SQLAlchemy writes a space of a password as it is
    if not rest.isprintable() or "%00" in rest:  # the driver would cut it there
        raise _malformed(what, "it has a character that is none of a URL's")
    if "@" in rest[rest.find("@") + 1 :] or rest.find("@") > rest.find("/") >= 0:
        raise _malformed(what, "an @ or a / in it is not written as %40 or %2F")
    options = _libpq_options(rest) if scheme["driver"] is None else _sqlalchemy_options(rest)
    if options is None:
        raise _malformed(what, "an option or a percent sign in it is not understood")
    if not all(_is_port(port) for port in options.get("port", "").split(",")):
        raise _malformed(what, "its port is no number from 1 to 65535")
    hosts = options.get("host", "").count(",") + 1
    if options.get("port") and "," not in options["port"]:  # SQLAlchemy wants one for each host
        options["port"] = ",".join([options["port"]] * hosts)
    return options


def sqlalchemy_url(url: str) -> str:
    """A URL for SQLAlchemy with psycopg 3, from a URL of libpq's or SQLAlchemy's form; with its password.

    Raises:
        Unreachable: it is no PostgreSQL URL.
    """
    return _engine_url(connection_options(url)).render_as_string(hide_password=False)


def libpq_url(options: Mapping[str, str]) -> str:
    """These connection options as a libpq URI; with its password."""
    rest = dict(options)
    user, password, name = (rest.pop(part, None) for part in ("user", "password", "dbname"))
    secret = "" if password is None else f":{quote(password, safe='')}"
    account = "" if user is None and password is None else f"{quote(user or '', safe='')}{secret}@"
    host = ""
    if _is_one_host(rest.get("host", "")):
        host = rest.pop("host")
        port = rest.pop("port", "")
        host = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    path = "" if name is None else f"/{quote(name, safe='')}"
    query = f"?{urlencode(rest, safe='/,', quote_via=quote)}" if rest else ""
    return f"postgresql://{account}{host}{path}{query}"


def display_url(options: Mapping[str, str]) -> str:
    """A libpq URI that says which server and database are meant, without whatever may be secret."""
    return libpq_url({name: options[name] for name in SHOWN if name in options})


def engine_arguments(options: Mapping[str, str]) -> tuple[URL, dict[str, str]]:
    """URL and `connect_args` for `create_engine`; the repr of its Engine shows no secret."""
    secrets = {name: value for name, value in options.items() if name in SECRETS and name != "password"}
    plain = {name: value for name, value in options.items() if name not in secrets}
    return _engine_url(plain), secrets


def masked(message: str, options: Mapping[str, str]) -> str:
    """A message of the driver's without the secrets of these options."""
    for name in SECRETS & options.keys():
        if len(options[name]) >= MASKED_LENGTH:
            message = message.replace(options[name], "***")
    return message


def _malformed(what: str, reason: str) -> Unreachable:
    return Unreachable(
        f"{what} is not of the form {FORM}: {reason}. Write special characters of user, password and database as %XX. "
        "(It is not repeated here, since it may hold a password.)"
    )


def _libpq_options(rest: str) -> dict[str, str] | None:
    with suppress(psycopg.Error, UnicodeError):
        return {name: str(value) for name, value in conninfo_to_dict(f"postgresql://{rest}").items()}
    return None


def _sqlalchemy_options(rest: str) -> dict[str, str] | None:
    dialect: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    with suppress(psycopg.Error, ArgumentError, ValueError):  # of a UnicodeError, too
        _, given = dialect.create_connect_args(make_url(f"postgresql+psycopg://{rest}"))
        return {name: str(value) for name, value in conninfo_to_dict(make_conninfo(**given)).items()}
    return None


def _engine_url(options: Mapping[str, str]) -> URL:
    rest = dict(options)
    user, password, name = (rest.pop(part, None) for part in ("user", "password", "dbname"))
    host = port = None
    if _is_one_host(rest.get("host", "")):
        host, port = rest.pop("host"), rest.pop("port", None)
    if password is not None:
        user = user or ""  # without, SQLAlchemy leaves out the password
    number = int(port) if port else None
    return URL.create("postgresql+psycopg", user, password, host, number, name, rest)


def _is_one_host(host: str) -> bool:
    """Whether it can stand before the path: neither a socket's folder nor several."""
    return re.fullmatch(r"[\w.:-]+", host) is not None


def _is_port(port: str) -> bool:
    return not port or (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535)
