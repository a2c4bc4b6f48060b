"""Enums of the model and of protobuf, matched by their members' names."""

from collections.abc import Iterable
from enum import Enum
from typing import Generic, Protocol, TypeVar

from cranekit.errors import CraneError, ErrorCode

ModelEnum = TypeVar("ModelEnum", bound=Enum)
WireValue = TypeVar("WireValue", bound=int)
WireValue_co = TypeVar("WireValue_co", bound=int, covariant=True)


class WireError(CraneError, ValueError):
    """A message has no meaning here: made by a newer peer, or by a faulty one."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENT, message)


class _WireEnum(Protocol[WireValue_co]):
    """What the generated enum wrappers offer."""

    def keys(self) -> Iterable[str]: ...

    def Value(self, name: str) -> WireValue_co: ...  # noqa: N802 - protobuf's name


class EnumCodec(Generic[ModelEnum, WireValue]):
    """Maps `NAME` of the model to `<PREFIX>_NAME` on the wire. Both sides must name the same members."""

    def __init__(self, model: type[ModelEnum], wire: _WireEnum[WireValue], prefix: str) -> None:
        """Build both directions once.

        Raises:
            WireError: one side has a member that the other lacks.
        """
        self._name = model.__name__
        self._to_wire = {member: f"{prefix}_{member.name}" for member in model}
        if {*self._to_wire.values(), f"{prefix}_UNSPECIFIED"} != set(wire.keys()):
            message = f"{self._name} and its protobuf enum name different members"
            raise WireError(message)
        self._values = {member: wire.Value(name) for member, name in self._to_wire.items()}
        self._members = {int(value): member for member, value in self._values.items()}

    def to_wire(self, member: ModelEnum) -> WireValue:
        return self._values[member]

    def from_wire(self, value: int) -> ModelEnum:
        """The member.

        Raises:
            WireError: unspecified, or a value that this version does not know.
        """
        try:
            return self._members[value]
        except KeyError:
            message = f"{self._name} on the wire: {value} is none of {sorted(self._members)}"
            raise WireError(message) from None
