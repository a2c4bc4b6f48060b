"""What of a slurm.conf does not come along, and why."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that a person should know of."""

    place: str
    """`file:line`, or the file."""
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.why}"
