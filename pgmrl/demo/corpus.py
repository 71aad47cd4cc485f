"""Real text that every machine has: the docstrings of Python's standard library, some ten thousand.

Sources are read with `ast`, so nothing of the library is run. What is written in C has no source: a fixed list of
such modules is imported and inspected, which is what `help()` does too. What is found differs from one Python to
the next (tests are left out, and a distribution may leave out more); the order does not.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sysconfig
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Docstring", "Kind", "docstrings"]

Kind = Literal["module", "class", "function", "method", "property"]


@dataclass(frozen=True, slots=True)
class Docstring:
    """One documented object of the standard library.

    Attributes:
        name: the object's full name, unique in a corpus: `json.encoder.JSONEncoder.iterencode`.
        kind: what it is.
        module: the module it is documented under: `json.encoder`.
        package: the module's top: `json`.
        signature: `(o, _one_shot=False)` of a function or method, None where there is none or it is not known.
        summary: the first paragraph, on one line.
        text: the whole docstring, its indentation removed; two words or more, always storable as PostgreSQL `text`.
        path: the source file, relative to the library's folder; None where it is written in C.
        line: the line of the definition, from 1; None where it is written in C.

    """

    name: str
    kind: Kind
    module: str
    package: str
    signature: str | None
    summary: str
    text: str
    path: str | None
    line: int | None


# Tests and vendored packages are not the library; turtledemo and pydoc_data are data.
_SKIPPED_FOLDERS: Final = frozenset(
    {"__pycache__", "dist-packages", "idle_test", "pydoc_data", "site-packages", "test", "tests", "turtledemo"}
)

# Python twins of C modules, under the name both are imported by; the twin's docstrings are the longer ones.
_PUBLIC_SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "_collections_abc": "collections.abc",
        "_pydatetime": "datetime",
        "_pydecimal": "decimal",
        "_pyio": "io",
    }
)

# C modules that are safe to import (no terminal, no display, nothing deprecated) and the name they are known by.
# A list rather than `sys.builtin_module_names`: builds differ in what is linked in and what is a file.
_COMPILED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "_ast": "ast",
        "_asyncio": "asyncio",
        "_bisect": "bisect",
        "_blake2": "hashlib",
        "_bz2": "bz2",
        "_codecs": "codecs",
        "_collections": "collections",
        "_contextvars": "contextvars",
        "_csv": "csv",
        "_ctypes": "ctypes",
        "_curses": "curses",
        "_datetime": "datetime",
        "_decimal": "decimal",
        "_elementtree": "xml.etree.ElementTree",
        "_functools": "functools",
        "_hashlib": "hashlib",
        "_heapq": "heapq",
        "_io": "io",
        "_json": "json",
        "_locale": "locale",
        "_lzma": "lzma",
        "_md5": "hashlib",
        "_operator": "operator",
        "_pickle": "pickle",
        "_queue": "queue",
        "_random": "random",
        "_sha3": "hashlib",
        "_signal": "signal",
        "_socket": "socket",
        "_sqlite3": "sqlite3",
        "_ssl": "ssl",
        "_struct": "struct",
        "_thread": "_thread",
        "_tracemalloc": "tracemalloc",
        "_weakref": "weakref",
        "_zoneinfo": "zoneinfo",
        "array": "array",
        "atexit": "atexit",
        "binascii": "binascii",
        "builtins": "builtins",
        "cmath": "cmath",
        "errno": "errno",
        "faulthandler": "faulthandler",
        "fcntl": "fcntl",
        "gc": "gc",
        "grp": "grp",
        "itertools": "itertools",
        "marshal": "marshal",
        "math": "math",
        "mmap": "mmap",
        "msvcrt": "msvcrt",
        "nt": "os",
        "posix": "os",
        "pwd": "pwd",
        "pyexpat": "xml.parsers.expat",
        "resource": "resource",
        "select": "select",
        "sys": "sys",
        "syslog": "syslog",
        "termios": "termios",
        "time": "time",
        "unicodedata": "unicodedata",
        "winreg": "winreg",
        "zlib": "zlib",
    }
)

_PROPERTY_DECORATORS: Final = frozenset(
    {"DynamicClassAttribute", "abstractproperty", "cached_property", "getter", "property"}
)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_METHODS: Final = (types.MethodDescriptorType, types.ClassMethodDescriptorType, classmethod, staticmethod)
_FIELDS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType, property)


def docstrings() -> list[Docstring]:
    """The standard library's docstrings, without repeats, ordered by name.

    Takes a second or two. Where several objects have the same text, or a name is defined twice, one is kept: the
    public one before the private one, the one with a source before the one without.

    Returns:
        9,672 with CPython 3.11.7 on Linux, 9,170 with 3.13.0; fewer where the distribution leaves out parts of
        the library (8,269 with Debian's 3.11), and only what is written in C where it carries no sources.

    """
    entries = sorted([*_from_sources(), *_from_compiled()], key=_precedence)
    texts, names, kept = set[str](), set[str](), list[Docstring]()
    for entry in entries:
        if entry.text not in texts and entry.name not in names:
            texts.add(entry.text)
            names.add(entry.name)
            kept.append(entry)
    return sorted(kept, key=lambda entry: entry.name)


def _precedence(entry: Docstring) -> tuple[bool, bool, str, int]:
    private = any(part.startswith("_") and not part.endswith("__") for part in entry.name.split("."))
    return private, entry.path is None, entry.name, entry.line or 0


def _docstring(
    text: object,
    *,
    name: str,
    kind: Kind,
    module: str,
    signature: str | None = None,
    path: str | None = None,
    line: int | None = None,
) -> Iterator[Docstring]:
    """One docstring, or none where there is no text worth the name."""
    if not isinstance(text, str):  # a few C types have a descriptor there
        return
    # PostgreSQL stores neither NUL nor half a surrogate pair.
    clean = inspect.cleandoc(text).replace("\0", "\\0").encode("utf-8", "backslashreplace").decode().strip()
    if " " in clean or "\n" in clean:  # a single word says nothing: "Add" of ast.Add, "Stub."
        summary = " ".join(clean.split("\n\n", 1)[0].split())
        yield Docstring(name, kind, module, module.partition(".")[0], signature, summary, clean, path, line)


# From sources


def _from_sources() -> Iterator[Docstring]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in _source_files(root):
        relative = path.relative_to(root)
        if tree := _parsed(path):
            yield from _of_module(tree, _module_name(relative), relative.as_posix())


def _source_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name.isidentifier() and name not in _SKIPPED_FOLDERS]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _parsed(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's own invalid escapes are not the caller's concern
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # a template, or a file for another version of Python


def _module_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return _PUBLIC_SOURCES.get(name, name)


def _of_module(tree: ast.Module, module: str, path: str) -> Iterator[Docstring]:
    yield from _docstring(
        ast.get_docstring(tree, clean=False), name=module, kind="module", module=module, path=path, line=1
    )
    for node, owner in _definitions(tree.body, ""):
        is_function = isinstance(node, _FUNCTIONS)
        yield from _docstring(
            ast.get_docstring(node, clean=False),
            name=f"{module}.{owner}{node.name}",
            kind=_source_kind(node, in_class=bool(owner)),
            module=module,
            signature=_source_signature(node) if is_function else None,
            path=path,
            line=node.lineno,
        )


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(body: Iterable[ast.AST], owner: str) -> Iterator[tuple[_Definition, str]]:
    """Every class and function that can be named from outside, with its owner ("" or "Class.").

    Goes into `if`, `try` and `with`, where the library defines what depends on the platform, and not into
    functions.
    """
    for node in body:
        if isinstance(node, _Definition):
            yield node, owner
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{owner}{node.name}.")
        elif not isinstance(node, _FUNCTIONS):
            for block in ("body", "handlers", "orelse", "finalbody"):
                inner = getattr(node, block, ())
                if isinstance(inner, list):  # a lambda's body is an expression
                    yield from _definitions(inner, owner)


def _source_kind(node: _Definition, *, in_class: bool) -> Kind:
    if isinstance(node, ast.ClassDef):
        return "class"
    if not in_class:
        return "function"
    names = {getattr(decorator, "id", getattr(decorator, "attr", None)) for decorator in node.decorator_list}
    return "method" if names.isdisjoint(_PROPERTY_DECORATORS) else "property"


def _source_signature(node: _Definition) -> str | None:
    if isinstance(node, ast.ClassDef) or _source_kind(node, in_class=True) == "property":
        return None
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


# From modules written in C


def _from_compiled() -> Iterator[Docstring]:
    for imported, public in _COMPILED.items():
        try:
            module = importlib.import_module(imported)
        except ImportError:
            continue  # of another platform, or not built
        if str(getattr(module, "__file__", "")).endswith(".py"):
            continue  # another Python's implementation (PyPy): its source has been read
        yield from _of_compiled(module, public)


def _of_compiled(module: types.ModuleType, public: str) -> Iterator[Docstring]:
    yield from _docstring(module.__doc__, name=public, kind="module", module=public)
    for name, value in list(vars(module).items()):
        if isinstance(value, type):
            if value.__module__ in {module.__name__, public}:  # not what it imports from elsewhere
                yield from _of_class(value, name, public)
        elif isinstance(value, types.BuiltinFunctionType):
            yield from _inspected(value, f"{public}.{name}", "function", public)


def _of_class(value: type, name: str, public: str) -> Iterator[Docstring]:
    yield from _docstring(value.__doc__, name=f"{public}.{name}", kind="class", module=public)
    for key, member in list(vars(value).items()):
        if key.startswith("__"):
            continue  # "Return self==value." of every type there is
        if isinstance(member, _METHODS):
            yield from _inspected(member, f"{public}.{name}.{key}", "method", public)
        elif isinstance(member, _FIELDS):
            yield from _inspected(member, f"{public}.{name}.{key}", "property", public)


def _inspected(value: Any, name: str, kind: Kind, module: str) -> Iterator[Docstring]:
    signature = None if kind == "property" else _compiled_signature(value)
    yield from _docstring(value.__doc__, name=name, kind=kind, module=module, signature=signature)


def _compiled_signature(value: Any) -> str | None:
    """`($module, x, /)` as one would write it; `inspect.signature` evaluates its defaults and fails on some."""
    text = getattr(getattr(value, "__func__", value), "__text_signature__", None)
    if text is None:
        return None
    return re.sub(r"\(\$module(, /)?(, )?", "(", text).replace("$", "").replace("<unrepresentable>", "...")
