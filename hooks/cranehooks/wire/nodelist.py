"""Lists of nodes on the wire: one comma separated text, in which a front end may use hostlist ranges."""

from cranehooks.model.ids import NodeName


def nodelist_to_wire(nodes: tuple[NodeName, ...]) -> str:
    return ",".join(nodes)


def nodelist_from_wire(text: str) -> tuple[NodeName, ...]:
    """The entries between commas that stand outside brackets. Ranges stay as they are: who knows the nodes expands them."""
    entries: list[str] = [""]
    depth = 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth <= 0:
            entries.append("")
        else:
            entries[-1] += character
    return tuple(NodeName(entry.strip()) for entry in entries if entry.strip())
