"""The embedded server: PostgreSQL with pgvector from a wheel, started on demand and stopped when nobody uses it.

Nothing is imported from the extra `local` and nothing is touched on disk before the first call.

On Linux and macOS the server listens only on a socket in a folder of mode 0700, and trusts whoever can open it.
On Windows, where this is untested, it listens on a free port of 127.0.0.1 and trusts every user of the machine.

A process ended by SIGKILL, or by SIGTERM without a handler, cannot stop the server it was the last to use; the
next use finds that server, and stops it in its turn.
"""

from pgmrl.local.server import LocalServer, LocalStatus, database_url, server_url, start, status, stop

__all__ = ["LocalServer", "LocalStatus", "database_url", "server_url", "start", "status", "stop"]
