"""The embedded server: PostgreSQL with pgvector from a wheel, started on demand and stopped after its last use.

Before the first call nothing is imported from the extra `local`, and nothing is written to disk.

On Linux and macOS the server listens only on a socket in a folder of mode 0700, and trusts every process that can open
it. On Windows, where this is untested, it listens on a free port of 127.0.0.1 and trusts every user of the machine.

A process ended by SIGKILL, or by SIGTERM without a handler, cannot stop the server; the next use joins that server, and
stops it when it ends.
"""

from pgmrl.local.server import LocalServer, LocalStatus, database_url, server_url, start, status, stop

__all__ = ["LocalServer", "LocalStatus", "database_url", "server_url", "start", "status", "stop"]
