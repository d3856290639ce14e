"""The overlays, built once, and the definitions they are held against."""

import copy
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.k8s.manifests import Rendered, render
from tests.k8s.schemas import Definitions


@cache
def _built(overlay: str) -> Rendered:
    return render(overlay)


@pytest.fixture
def build() -> Callable[[str], Rendered]:
    """Builds an overlay once. Without kubectl tests skip; under CI=true they fail."""
    if shutil.which("kubectl") is None:
        reason = "no kubectl: install Debian's kubernetes-client, or any newer one"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return lambda overlay: Rendered(copy.deepcopy(_built(overlay).manifests))


@pytest.fixture(scope="module")
def definitions(kuberay_crds: Path) -> Definitions:
    return Definitions(kuberay_crds)
