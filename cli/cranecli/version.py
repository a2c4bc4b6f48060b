"""What `--version` prints; imported only then, because looking a version up takes longer than crun does."""

from importlib.metadata import version


def version_text(program: str) -> str:
    return f"{program} (crane-hooks) {version('crane-hooks')}\n"
