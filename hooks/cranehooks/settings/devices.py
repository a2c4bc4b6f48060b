"""The devices of a node as they stand in the configuration file: counts in a text, or entries with their files."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from cranehooks.model.gres import MAX_COUNT, GresCount, NodeDevice, gres_text
from cranehooks.settings.section import Section
from cranehooks.settings.values import parse_gres, shown
from cranekit import hostlist

_WORD = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_LONGEST_PATH = 4096


def device_paths(text: str) -> list[str]:
    """The files that `/dev/nvidia[0-3]` stands for; brackets in the last part of the path only.

    Raises:
        ValueError: it is no absolute path, or the brackets are wrong.
    """
    directory, slash, name = text.partition("[")[0].rpartition("/")
    if not text.startswith("/") or not slash or len(text) > _LONGEST_PATH or ".." in directory.split("/"):
        msg = f"expected the absolute path of a device file, such as /dev/nvidia0 or /dev/nvidia[0-3], not {shown(text)}"
        raise ValueError(msg)
    try:
        names = hostlist.expand(text[len(directory) + 1 :])
    except hostlist.HostlistError as error:
        msg = f"{shown(text)} names no device files: {error.message}"
        raise ValueError(msg) from error
    if not name and not names:
        msg = f"{shown(text)} is a directory: expected a device file"
        raise ValueError(msg)
    return [f"{directory}/{each}" for each in names]


def _parse_files(value: object) -> tuple[tuple[str, ...], ...]:
    """Each device's files: a text stands for as many devices as it names files, a list of texts for one with all of them."""
    if isinstance(value, tuple):
        value = [list(files) for files in value]
    if not isinstance(value, list):
        msg = f"expected a list of device files, not {shown(value)}"
        raise ValueError(msg)  # noqa: TRY004 pydantic reports ValueErrors
    devices: list[tuple[str, ...]] = []
    for entry in value:
        if isinstance(entry, str):
            devices += ((path,) for path in device_paths(entry))
        elif isinstance(entry, list) and entry and all(isinstance(part, str) for part in entry):
            devices.append(tuple(path for part in entry for path in device_paths(part)))
        else:
            msg = f"expected device files, or a list of them for one device, not {shown(entry)}"
            raise ValueError(msg)
    paths: set[str] = set()
    for path in (path for files in devices for path in files):
        if path in paths:
            msg = f"{path} stands there twice: a file belongs to one device"
            raise ValueError(msg)
        paths.add(path)
    if len(devices) > MAX_COUNT:
        msg = f"{len(devices)} devices: expected at most {MAX_COUNT}"
        raise ValueError(msg)
    return tuple(devices)


_PATHS = {"type": "string"}


class GresSection(Section):
    """One entry of a node's `gres`: devices that are alike."""

    model_config = ConfigDict(alias_generator=None)

    name: Annotated[str, Field(pattern=_WORD)]
    """What jobs ask for: `gpu`, whose devices are told in `CUDA_VISIBLE_DEVICES` and its like, or any other word."""
    type: Annotated[str, Field(pattern=r"^$|" + _WORD)] = ""
    """What jobs may ask for besides: `--gres=gpu:a100:2`. Default none."""
    count: Annotated[int | None, Field(ge=1, le=MAX_COUNT)] = None
    """How many. Default: as many as `files` names, or 1."""
    files: Annotated[
        tuple[tuple[str, ...], ...],
        BeforeValidator(_parse_files),
        WithJsonSchema({"type": "array", "items": {"anyOf": [_PATHS, {"type": "array", "items": _PATHS}]}}),
    ] = ()
    """Device files, one device each: `/dev/nvidia[0-3]` is four. A list within the list is one device with several files:
    `[/dev/dri/card0, /dev/dri/renderD128]`. Jobs that do not hold a device cannot open its files (`JobLimits`: `ConstrainDevices`);
    files that no entry names stay open to all. Default none: devices are counted and numbered only."""

    @model_validator(mode="after")
    def _check_count(self) -> "GresSection":
        if self.count is not None and self.files and self.count != len(self.files):
            msg = f"count is {self.count}, but files names {len(self.files)} devices: leave one of them out"
            raise ValueError(msg)
        return self

    @property
    def how_many(self) -> int:
        return self.count or len(self.files) or 1


def _parse_entries(value: object) -> object:
    """A text of counts as the entries it stands for."""
    if isinstance(value, str):
        entries = [entry.split(":") for entry in parse_gres(value).split(",") if entry]
        return tuple({"name": parts[0], "type": ":".join(parts[1:-1]), "count": int(parts[-1])} for parts in entries)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, tuple):
        return value
    msg = f"expected a text such as gpu:a100:4, or a list of entries with name, type, count and files, not {shown(value)}"
    raise ValueError(msg)


def _distinct(entries: tuple[GresSection, ...]) -> tuple[GresSection, ...]:
    owners: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        for path in (path for files in entry.files for path in files):
            if path in owners:
                msg = f"{path} is a file of {owners[path]} already"
                raise ValueError(msg)
            owners[path] = f"entry {number}"
    return entries


def _schema() -> dict[str, Any]:  # Any: JSON
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": GresSection.model_json_schema(by_alias=True)}]}


GresEntries = Annotated[
    tuple[GresSection, ...], BeforeValidator(_parse_entries), AfterValidator(_distinct), WithJsonSchema(_schema())
]


def counts_of(entries: tuple[GresSection, ...]) -> str:
    """The entries as counts, in the order in which their devices are numbered."""
    return gres_text(GresCount(entry.name, entry.type, entry.how_many) for entry in entries)


def devices_of(entries: tuple[GresSection, ...]) -> tuple[NodeDevice, ...]:
    """Every device, numbered among those of its name."""
    devices: list[NodeDevice] = []
    numbers: dict[str, int] = {}
    for entry in entries:
        for place in range(entry.how_many):
            index = numbers.get(entry.name, 0)
            numbers[entry.name] = index + 1
            devices.append(NodeDevice(entry.name, index, entry.type, entry.files[place] if entry.files else ()))
    return tuple(devices)
