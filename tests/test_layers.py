"""Imports go down only: the doors stand on ffaa_core, and never on each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "ffaa_core": {"ffaa_core"},
    "ray_jobs": {"ffaa_core", "ray_jobs"},
    "serve": {"ffaa_core", "serve"},
}


def imported_layers(source: str) -> set[str]:
    """The layers that a module imports anywhere in its source; a relative import never leaves its own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names.update(
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )
    return {name.split(".")[0] for name in names} & MAY_IMPORT.keys()


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_those_below_it(layer: str) -> None:
    imports = {path: imported_layers(path.read_text()) for path in (ROOT / layer).rglob("*.py")}
    assert imports, f"{layer} has no modules: has it moved?"
    assert {path.name: layers for path, layers in imports.items() if not layers <= MAY_IMPORT[layer]} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import ray_jobs.score",
        "from ray_jobs import score",
        "from ray_jobs.score.command import main",
        "def late():\n    import ray_jobs",
        "import importlib\nimportlib.import_module('ray_jobs.score')",
    ],
)
def test_every_way_to_import_a_layer_is_seen(source: str) -> None:
    assert imported_layers(source) == {"ray_jobs"}
