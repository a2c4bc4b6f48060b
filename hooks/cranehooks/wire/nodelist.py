"""Lists of nodes on the wire: a hostlist in one text; in the model, the names it stands for."""

from cranehooks.model.ids import NodeName
from cranehooks.wire.enumeration import WireError
from cranekit.hostlist import HostlistError, expand


def nodelist_to_wire(nodes: tuple[NodeName, ...]) -> str:
    return ",".join(nodes)


def nodelist_from_wire(text: str, field: str) -> tuple[NodeName, ...]:
    """The names, each once, in the order given.

    Raises:
        WireError: `text`, of `field`, is no hostlist.
    """
    try:
        return tuple(NodeName(name) for name in expand(text))
    except HostlistError as error:
        message = f"{field}: {error}"
        raise WireError(message) from error
