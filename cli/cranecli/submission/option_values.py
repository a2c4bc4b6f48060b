"""Reads the values of options: from the text of a command line to numbers with units, lists and paths.

What only some options need is imported and compiled when one of them is given.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_EXPORT = ("ALL",)
_LARGEST_NUMBER = (1 << 32) - 1
_UNLIMITED = frozenset({"unlimited", "infinite"})
_INDEXES = r"\d+(?:-\d+(?::[1-9]\d*)?)?(?:,\d+(?:-\d+(?::[1-9]\d*)?)?)*"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


class OptionValueError(ValueError):
    """The text is no such value. The message says what was expected."""


def plain_text(text: str) -> str:
    if not text:
        raise OptionValueError("must not be empty")
    if not text.isprintable():
        raise OptionValueError(f"holds a character that cannot be printed: {text!r}")
    return _encodable(text)


def positive_number(text: str) -> int:
    from cranekit import units

    try:
        number = units.parse_count(text)
    except units.UnitError as error:
        raise OptionValueError(error.message) from error
    if number > _LARGEST_NUMBER:
        raise OptionValueError(f"{text!r} is too many: expected at most {_LARGEST_NUMBER}")
    return number


def positive_share(text: str) -> float:
    """CPUs: whole, or parts of one."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) is None or float(text) <= 0:
        raise OptionValueError(f"expected a number above 0, got {text!r}")
    return float(text)


def memory_bytes(text: str) -> int:
    """`4G`, `512M`; a number alone is megabytes. Powers of 1024."""
    from cranekit import units

    try:
        size = units.parse_memory(text)
    except units.UnitError as error:
        raise OptionValueError(error.message) from error
    if not 0 < size < 1 << 63:
        raise OptionValueError(f"expected a size above 0 that a computer can have, got {text!r}")
    return size


def gres_list(text: str) -> str:
    """`gpu:2`, `gpu:a100:2,nic:1`; `none` for none."""
    from cranehooks.model.gres import gres_text, parse_gres

    if text.lower() == "none":
        return ""
    try:
        counts = parse_gres(plain_text(text))
    except ValueError as error:
        raise OptionValueError(str(error)) from error
    if not counts:
        raise OptionValueError(f"expected name[:type][:count],…, got {text!r}")
    return gres_text(counts)


def gpu_count(text: str) -> str:
    """`2`, `a100:2`."""
    from cranehooks.model.gres import parse_gres

    try:
        counts = parse_gres(f"gpu:{plain_text(text)}")
    except ValueError as error:
        raise OptionValueError(f"expected [type:]count, got {text!r}") from error
    if len(counts) != 1:
        raise OptionValueError(f"expected one [type:]count, got {text!r}")
    return str(counts[0]).removeprefix("gpu:")


def time_limit_s(text: str) -> int | None:
    """`MINUTES`, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`; `unlimited`: the partition's limit."""
    from cranekit import units

    if text.lower() in _UNLIMITED:
        return None
    try:
        limit_s = units.parse_time_limit(text)
    except units.UnitError as error:
        raise OptionValueError(error.message) from error
    if limit_s <= 0:
        raise OptionValueError(f"expected a time above 0, got {text!r}")
    return limit_s


def array_indexes(text: str) -> str:
    if re.fullmatch(_INDEXES, text, re.ASCII) is None:
        raise OptionValueError(f"expected indexes such as 0-9:2,20, got {text!r}")
    return text


def task_input(text: str) -> str:
    if text not in {"none", "0"}:
        raise OptionValueError(f"expected none, or 0 for task 0, got {text!r}")
    return text


def shell_command(text: str) -> str:
    """Any text; it may have lines."""
    if not text.strip():
        raise OptionValueError("must not be empty")
    return _encodable(text)


def script_path(text: str) -> str:
    """An absolute path of a program of the user's; `none` for no script. Whether it exists is for its node to say."""
    return text if text == "none" else os.path.abspath(plain_text(text))  # noqa: PTH100 - pathlib costs too much at start


def existing_script(text: str) -> str:
    """An absolute path of a program of the user's on this host; empty for `none`."""
    if text == "none":
        return ""
    path = script_path(text)
    if not os.path.exists(path):  # noqa: PTH110
        raise OptionValueError(f"{path} does not exist (`none` means no script)")
    return path


def export_list(text: str) -> tuple[str, ...]:
    """`ALL`, `NONE`, or names and `NAME=value` entries separated by commas; a value with a comma stands in quotes."""
    entries = [entry for entry in _split_at_commas(text) if entry]
    if not entries:
        raise OptionValueError("expected ALL, NONE, or NAME,NAME=value,…")
    for entry in entries:
        name = entry.partition("=")[0]
        if re.fullmatch(_VARIABLE, name) is None:
            raise OptionValueError(f"{name!r} is no name of an environment variable")
    if "NONE" in entries and len(entries) > 1:
        raise OptionValueError(f"NONE stands alone, got {text!r}")
    return tuple(_encodable(entry) for entry in entries)


def exported_environment(export: tuple[str, ...], environment: Mapping[bytes, bytes]) -> tuple[dict[str, str], list[str]]:
    """What `--export` passes on of an environment, and a warning for each variable that cannot be."""
    if export == ("NONE",):
        return {}, []
    decoded: dict[str, str] = {}
    warnings: list[str] = []
    takes_all = "ALL" in export
    names = {entry for entry in export if "=" not in entry}
    for raw_name, raw_value in environment.items():
        name = raw_name.decode("utf-8", "backslashreplace")
        if not takes_all and name not in names:
            continue
        try:
            decoded[raw_name.decode()] = raw_value.decode()
        except UnicodeDecodeError:
            warnings.append(f"environment variable {name} is not UTF-8 and is not passed on")
    for entry in export:
        name, equals, value = entry.partition("=")
        if equals:
            decoded[name] = value
    return decoded, warnings


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OptionValueError(f"is not UTF-8: {text!r}") from None
    return text


def _split_at_commas(text: str) -> list[str]:
    entries = [""]
    quote = ""
    for letter in text:
        if quote:
            if letter == quote:
                quote = ""
            else:
                entries[-1] += letter
        elif letter in "'\"":
            quote = letter
        elif letter == ",":
            entries.append("")
        else:
            entries[-1] += letter
    if quote:
        raise OptionValueError(f"a quote {quote} is not closed: {text!r}")
    return entries
