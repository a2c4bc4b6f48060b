"""Import-linter contracts by name pattern: they hold for modules of a naming scheme, also for those that come later."""

from fnmatch import fnmatchcase
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def _matches(module: str, patterns: set[str]) -> bool:
    """A pattern covers the modules below it too: ``*.service`` stands for ``cranectld.service.jobs`` as well."""
    return any(fnmatchcase(module, pattern) or fnmatchcase(module, f"{pattern}.*") for pattern in patterns)


def _arrow(chain: tuple[str, ...]) -> str:
    return " -> ".join(chain)


class ImportersContract(Contract):
    """Only modules whose names match ``importers`` import what matches ``imported`` (directly)."""

    type_name = "importers"

    imported = fields.SetField(subfield=fields.StringField())
    importers = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        imported, importers = cast("set[str]", self.imported), cast("set[str]", self.importers)
        violations = [
            _arrow((importer, target))
            for target in sorted(graph.modules)
            if _matches(target, imported)
            for importer in sorted(graph.find_modules_that_directly_import(target))
            if not _matches(importer, importers) and not _matches(importer, imported)
        ]
        return ContractCheck(kept=not violations, metadata={"violations": violations})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for violation in check.metadata["violations"]:
            output.print_error(f"- {violation}")


class PureContract(Contract):
    """No module whose name matches ``modules`` imports what matches ``never``, directly or by way of others."""

    type_name = "pure"

    modules = fields.SetField(subfield=fields.StringField())
    never = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        modules, never = cast("set[str]", self.modules), cast("set[str]", self.never)
        violations = [
            _arrow(tuple(graph.find_shortest_chain(importer=module, imported=target) or (module, target)))
            for module in sorted(graph.modules)
            if _matches(module, modules)
            for target in sorted(graph.find_upstream_modules(module))
            if _matches(target, never)
        ]
        return ContractCheck(kept=not violations, metadata={"violations": violations})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for violation in check.metadata["violations"]:
            output.print_error(f"- {violation}")
