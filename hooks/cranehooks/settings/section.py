"""What the mappings of the configuration file have in common."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_pascal


class Section(BaseModel):
    """A mapping of the file: strict types, no key unknown, never changed after loading."""

    model_config = ConfigDict(  # type: ignore[pydantic-alias]  # made by validation only, never by keyword arguments
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        alias_generator=to_pascal,
        populate_by_name=False,
        hide_input_in_errors=True,
    )
