"""The pages that follow from the code are complete, and staleness is told."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cranehooks.model.points import HookPoint
from cranehooks.profiles import PROFILES
from cranehooks.settings.schema import HookSection

SOURCE = Path(__file__).parents[3] / "docs/generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_point_profile_and_key_has_its_place(generate: ModuleType) -> None:
    points, profiles, configuration = generate.hook_points(), generate.profiles(), generate.configuration()
    assert all(f"\n## {point.value}\n" in points for point in HookPoint)
    assert all(f"\n## {name}\n" in profiles for name in PROFILES)
    assert all(f"- **`{field.alias}`**" in configuration for field in HookSection.model_fields.values())
    assert all(field.description for field in HookSection.model_fields.values())
    assert "- **`CranectldProlog`** (or `PrologCranectld`, `PrologCtld`, `CraneCtldProlog`, `PrologCraneCtld`):" in configuration


def test_check_tells_what_is_stale(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    generate.write(tmp_path)
    assert generate.main() == 0
    page = tmp_path / "reference/profiles.md"
    page.write_text(page.read_text().replace("crane-fail", "crane-fall", 1))
    assert generate.main() == 1
    assert "-|  | `crane-requeue` | `crane-fall` |" in capsys.readouterr().out
    page.unlink()
    assert generate.main() == 1
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    assert generate.differences(tmp_path) == []
