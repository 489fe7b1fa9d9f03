"""The database of a sweep, which any number of workers share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import optuna
import sqlalchemy

POLL_SECONDS = 1.0
_MOST_RETRIES = 3
_LOCK_SECONDS = 60  # how long a worker waits while others lock an SQLite file


def open_storage(url: str, heartbeat_seconds: int) -> optuna.storages.RDBStorage:
    """Opens the database at a URL, and creates its tables if it is empty.

    Raises:
        ValueError: It cannot be opened.
    """
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES)
    for last in (False, False, True):
        try:
            storage = optuna.storages.RDBStorage(
                url,
                heartbeat_interval=heartbeat_seconds,
                grace_period=3 * heartbeat_seconds,
                heartbeat_stale_trial_callback=retry,
            )
            break
        except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own
            # If two workers find an empty database, both create its tables, and the later one fails.
            if last:
                raise ValueError(f"--storage: {url} cannot be opened: {_first_line(error)}") from error
            time.sleep(POLL_SECONDS)
    if storage.engine.dialect.name == "sqlite":
        _lock_at_once(storage.engine)
    return storage


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turns Optuna's errors about its database into one line.

    Raises:
        OSError: The database cannot be read or written.
    """
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise OSError(
            f"The sweep's database cannot be read or written: {_first_line(error.__cause__ or error)}. Free some disk "
            "if that is full, and give the command again. If the database is damaged, restore it, or remove it "
            "together with trials.json and the report: the networks in trials/ are not trained again."
        ) from error


def _first_line(error: BaseException) -> str:
    """What went wrong, without the SQL that SQLAlchemy adds."""
    return f"{error}\n".splitlines()[0][:300]


def _lock_at_once(engine: sqlalchemy.Engine) -> None:
    """Makes each transaction of SQLite lock the file when it begins.

    Otherwise two workers can both read that a trial is waiting before either takes it: SQLite has no SELECT ... FOR
    UPDATE, on which Optuna relies. https://docs.sqlalchemy.org/en/20/dialects/sqlite.html describes the two events.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def connect(connection, _):
        connection.isolation_level = None  # the driver then leaves BEGIN to the event below
        connection.execute(f"PRAGMA busy_timeout = {1000 * _LOCK_SECONDS}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # closes the connections that were made without these events
