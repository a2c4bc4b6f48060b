"""The pattern contracts find what they forbid, and name the path to it."""

from collections.abc import Sequence

import grimp
import pytest
from importlinter import Contract

from tests.support.import_contracts import ImportersContract, PureContract


def graph(*imports: tuple[str, str]) -> grimp.ImportGraph:
    result = grimp.ImportGraph()
    for importer, imported in imports:
        result.add_import(importer=importer, imported=imported)
    return result


def violations(contract: Contract, *imports: tuple[str, str]) -> Sequence[str]:
    check = contract.check(graph(*imports), verbose=False)
    found: Sequence[str] = check.metadata["violations"]
    assert check.kept is (not found)
    return found


@pytest.fixture
def grpc_contract() -> Contract:
    return ImportersContract("grpc", {}, {"imported": ["grpc"], "importers": ["*.service*", "*_client", "kit.rpc"]})


@pytest.mark.parametrize(
    "importer", ["ctld.service", "ctld.service_jobs", "ctld.service.jobs", "ctld.craned_client", "kit.rpc.server"]
)
def test_allowed_importers(grpc_contract: Contract, importer: str) -> None:
    assert violations(grpc_contract, (importer, "grpc")) == []


def test_other_importers_are_named(grpc_contract: Contract) -> None:
    assert violations(grpc_contract, ("ctld.jobs", "grpc"), ("ctld.clients", "grpc")) == [
        "ctld.clients -> grpc",
        "ctld.jobs -> grpc",
    ]


def test_pure_modules_do_not_reach_it_by_way_of_others_either() -> None:
    contract = PureContract("pure", {}, {"modules": ["hooks.plan"], "never": ["os", "time"]})
    imports = [("hooks.plan.order", "kit.files"), ("kit.files", "os"), ("hooks.runner", "time")]
    assert violations(contract, *imports) == ["hooks.plan.order -> kit.files -> os"]


def test_pure_modules_may_be_absent() -> None:
    contract = PureContract("pure", {}, {"modules": ["hooks.plan"], "never": ["os"]})
    assert violations(contract, ("hooks.runner", "os")) == []
