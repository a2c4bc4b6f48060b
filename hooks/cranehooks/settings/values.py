"""Values as they stand in the configuration file, and what they mean: durations, sizes, addresses, lists of patterns."""

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

CONFIG_DIR_CONTEXT = "config_dir"
"""Key of the validation context under which the loader passes the directory of the file."""
DEFAULT_CONFIG_DIR = "/etc/crane"

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+(?::[0-5]?\d){0,2})")
_AGE = re.compile(r"(\d{1,9})\s*([dhms])", re.IGNORECASE)
_AGE_FACTORS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LONGEST_AGE_S = 100 * 365 * 86400.0
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_GRES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?:0*[1-9][0-9]{0,4}")
_SIZE_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_UNIX_PREFIX = "unix:"
_LOOPBACK_HOST = re.compile(r"localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1", re.IGNORECASE)
_UNIX_PATH_LIMIT = 107
"""Bytes that the kernel allows in the path of a Unix socket."""


def shown(value: object) -> str:
    """A value as an error message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_patterns(value: object) -> tuple[str, ...]:
    """A comma separated string, or a list of such strings, as patterns in the order given.

    Raises:
        ValueError: It is neither, or an entry is empty or holds a control character.
    """
    if isinstance(value, tuple):
        value = list(value)
    entries = value if isinstance(value, list) else [value]
    patterns: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            msg = "expected a path, a comma separated list of paths, or a YAML list of them; to have no hook, remove the key"
            raise ValueError(msg)  # noqa: TRY004 pydantic reports ValueErrors
        if not entry.isprintable():
            msg = f"a path cannot hold control characters: {shown(entry)}"
            raise ValueError(msg)
        patterns.extend(part for raw in entry.split(",") if (part := raw.strip()))
    return tuple(patterns)


def parse_time_limit(value: object) -> float | None:
    """Seconds as a number, `[days-]hours:minutes:seconds`, `minutes:seconds`, or `UNLIMITED` (None).

    A clock value that YAML itself takes for a number (1:30:00 without quotes) arrives here in seconds and means the same.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value <= 0:
            msg = f"a time limit is more than 0 seconds, this is {shown(value)}; UNLIMITED for none"
            raise ValueError(msg)
        return float(value)
    if isinstance(value, str):
        if value.upper() in {"UNLIMITED", "INFINITE"}:
            return None
        if (found := _CLOCK.fullmatch(value)) is not None and (seconds := _clock_seconds(found.group(1), found.group(2))) > 0:
            return float(seconds)
    msg = f"expected seconds, [days-]hours:minutes:seconds, or UNLIMITED, not {shown(value)}"
    raise ValueError(msg)


def _clock_seconds(days: str | None, clock: str) -> int:
    """A clock ends with seconds, but after `days-` it begins with hours: `2-12` is two and a half days."""
    parts = [int(part) for part in clock.split(":")]
    parts = [0] * (3 - len(parts)) + parts if days is None else parts + [0] * (3 - len(parts))
    return int(days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]


def parse_age(value: object) -> float | None:
    """Seconds as a number, a number with a unit (`30d`, `12h`, `15m`, `45s`), or `UNLIMITED` (None)."""
    if isinstance(value, str) and value.upper() in {"UNLIMITED", "INFINITE"}:
        return None
    seconds: float = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := _AGE.fullmatch(value.strip())) is not None:
        seconds = float(found.group(1)) * _AGE_FACTORS[found.group(2).lower()]
    if 0 < seconds <= LONGEST_AGE_S:
        return seconds
    msg = f"expected seconds, a number with d, h, m or s such as 30d, or UNLIMITED, not {shown(value)}"
    raise ValueError(msg)


def parse_size(value: object) -> int:
    """Bytes as a number, or with a binary unit: `512M`, `8G`, `1 TiB`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) is not None:
        return int(found.group(1)) * _SIZE_FACTORS[found.group(2).upper()]
    msg = f"expected bytes, or a number with a unit K, M, G or T, not {shown(value)}"
    raise ValueError(msg)


def parse_address(value: object) -> str:
    """`host:port`, `[v6]:port`, or `unix:/path`; without TLS only loopback hosts and Unix sockets are addresses.

    `{name}` stands for the node's name, in any part.
    """
    if not isinstance(value, str) or not value.isprintable():
        msg = f"expected host:port or unix:/path, not {shown(value)}"
        raise ValueError(msg)
    if value.startswith(_UNIX_PREFIX):
        path = value.removeprefix(_UNIX_PREFIX)
        if not path.startswith("/"):
            msg = f"the path of a Unix socket is absolute: unix:/path, not {shown(value)}"
            raise ValueError(msg)
        if len(path.encode()) > _UNIX_PATH_LIMIT:
            msg = f"the path of a Unix socket has at most {_UNIX_PATH_LIMIT} bytes, this one {len(path.encode())}"
            raise ValueError(msg)
        return value
    host, port = split_host_port(value)
    if _LOOPBACK_HOST.fullmatch(host) is None:
        msg = (
            f"{host} is not a loopback address: without TLS, which this version does not have, the programs talk only over "
            "loopback (127.0.0.1:port) or Unix sockets (unix:/path)"
        )
        raise ValueError(msg)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listen(value: object) -> str | None:
    """`host:port` of an HTTP server; port 0 takes a free one; an empty value (None) serves nothing."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        msg = f"expected host:port, not {shown(value)}"
        raise ValueError(msg)  # noqa: TRY004 pydantic reports ValueErrors
    host, port = split_host_port(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str) -> tuple[str, int]:
    """Host (brackets of an IPv6 address removed) and port of `host:port`.

    Raises:
        ValueError: The text has another form, or the port is out of range.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or (":" in host and not bracketed):
        msg = f"expected host:port, not {shown(text)}"
        raise ValueError(msg)
    if int(port) > 65535:
        msg = f"a port is at most 65535, not {port}"
        raise ValueError(msg)
    return host, int(port)


def parse_script_limit(value: object) -> int | None:
    """A count of nodes, or `auto` (None)."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.lower() == "auto":
        return None
    msg = f"expected a count of nodes or auto, not {shown(value)}"
    raise ValueError(msg)


def parse_names(value: object) -> tuple[str, ...]:
    """A comma separated string or a list of names (numbers count as names: uids)."""
    if isinstance(value, tuple):
        value = list(value)
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list):
        msg = f"expected a list of names, not {shown(value)}"
        raise ValueError(msg)  # noqa: TRY004 pydantic reports ValueErrors
    names: list[str] = []
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, str | int) or not str(entry).strip():
            msg = f"expected a name, not {shown(entry)}"
            raise ValueError(msg)
        names.append(str(entry).strip())
    return tuple(names)


def parse_path(value: object) -> str:
    """A path, absolute or relative to the configuration file's directory (resolved when the file is loaded)."""
    if not isinstance(value, str) or not value or not value.isprintable():
        msg = f"expected a path, not {shown(value)}"
        raise ValueError(msg)
    return value


def parse_gres(value: object) -> str:
    """Devices: `name[:type]:count`, comma separated."""
    if value == "" or (isinstance(value, str) and all(_GRES.fullmatch(part.strip()) for part in value.split(","))):
        return ",".join(part.strip() for part in str(value).split(",")) if value else ""
    msg = f"expected name:count or name:type:count, comma separated, not {shown(value)}"
    raise ValueError(msg)


def beside(config_dir: str, path: str) -> str:
    """The path, taken relative to the configuration file's directory. Symbolic links and `..` are left to the kernel."""
    return str(PurePosixPath(config_dir) / path)


def config_dir_of(info: ValidationInfo) -> str:
    """The directory that the loader passes as validation context; CraneSched's own without one."""
    context = info.context
    return str(context[CONFIG_DIR_CONTEXT]) if isinstance(context, dict) else DEFAULT_CONFIG_DIR


def _beside(path: str, info: ValidationInfo) -> str:
    return beside(config_dir_of(info), path)


def _all_beside(paths: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    return tuple(beside(config_dir_of(info), path) for path in paths)


_WORDS = {"type": "string"}
_LIST_OR_WORDS = {"anyOf": [_WORDS, {"type": "array", "items": _WORDS}]}

Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Patterns = Annotated[
    tuple[str, ...], BeforeValidator(parse_patterns), AfterValidator(_all_beside), WithJsonSchema(_LIST_OR_WORDS)
]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names), WithJsonSchema(_LIST_OR_WORDS)]
TimeLimit = Annotated[
    float | None,
    BeforeValidator(parse_time_limit),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _WORDS]}),
]
Age = Annotated[
    float | None,
    BeforeValidator(parse_age),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _WORDS]}),
]
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, _WORDS]})]
Address = Annotated[str, BeforeValidator(parse_address), WithJsonSchema(_WORDS)]
Listen = Annotated[str | None, BeforeValidator(parse_listen), WithJsonSchema({"type": ["string", "null"]})]
ConfigPath = Annotated[str, BeforeValidator(parse_path), AfterValidator(_beside), WithJsonSchema(_WORDS)]
ScriptLimit = Annotated[
    int | None,
    BeforeValidator(parse_script_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}]}),
]
