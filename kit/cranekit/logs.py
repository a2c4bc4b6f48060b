"""A program's log: one event with fields per line on stderr, as JSON unless a person is watching."""

import logging
import sys

import structlog
from structlog.typing import Processor

from cranekit.errors import CraneError, ErrorCode

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", *, as_json: bool | None = None, **fields: object) -> None:
    """Sets the log of this process up. Safe to repeat: the last one counts.

    Args:
        level: one of `LEVELS`; what is below it is dropped.
        as_json: None chooses JSON unless stderr is a terminal.
        fields: what every event carries, such as the program and the node.

    Raises:
        CraneError: INVALID_ARGUMENT, there is no such level.
    """
    if level not in LEVELS:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"log level {level!r}: expected one of {', '.join(LEVELS)}")
    is_json = not sys.stderr.isatty() if as_json is None else as_json
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The console's renderer formats tracebacks itself; a plain one shows no values of variables, which may be secrets.
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if is_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _take_over_standard_logging(number, shared, last)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)


def _take_over_standard_logging(level: int, shared: list[Processor], last: list[Processor]) -> None:
    """What libraries log by the standard library comes out in the same form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
