"""Lets CUDA builds of torchvision, torchaudio and torchcodec stand beside a CPU build of torch.

The package index has one wheel of each for Linux, built for CUDA; vLLM requires all three, and Transformers
imports what it finds. Beside a CPU torch their C++ extensions do not load. What then goes wrong, and what is
done about it here:

- torchvision looks up two operators that its extension would have declared («operator torchvision::nms does
  not exist»): they are declared first. Its Python parts then work.
- torchaudio lets the linker's OSError through: it is told that it has no extension, a state it supports.
- torchcodec does too, and is no use without it: that becomes the ImportError its users are prepared for.

What needs an extension still fails when called. Where the extensions load, or torch has CUDA or ROCm, nothing
is changed. vLLM and Ray start interpreters of their own, so this must hold in every one:
`ffaa_torchvision_hook.pth` calls `install` at start-up. That only sets up a finder; torch is imported when
one of the three is.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False  # typing's own costs milliseconds at every start of an interpreter
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class TorchvisionLoader(SourceFileLoader):
    """Declares the missing operators before torchvision runs."""

    def exec_module(self, module: ModuleType) -> None:
        import torch

        if not has_accelerator() and not self._extension_loads(module):
            for name, schema in SCHEMAS.items():
                if not hasattr(torch.ops.torchvision, name):
                    torch.library.define(f"torchvision::{name}", schema)
        super().exec_module(module)

    @staticmethod
    def _extension_loads(module: ModuleType) -> bool:
        import torch

        extension = PathFinder.find_spec("_C", list(module.__path__))
        if extension is None or extension.origin is None:
            return False
        try:
            torch.ops.load_library(extension.origin)
        except OSError:
            return False
        return True


class TorchaudioLoader(SourceFileLoader):
    """Lets torchaudio's `_load_lib` say False of an extension that does not load, as of an absent one."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if has_accelerator():
            return
        load = module._load_lib

        def load_or_false(name: str) -> bool:
            try:
                return bool(load(name))
            except OSError:
                return False

        vars(module)["_load_lib"] = load_or_false


class TorchcodecLoader(SourceFileLoader):
    """Turns the linker's OSError into an ImportError."""

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except OSError as error:
            if has_accelerator():
                raise
            raise ImportError(f"torchcodec cannot be used beside a CPU build of torch: {error}") from None


LOADERS = {
    "torchvision": TorchvisionLoader,
    "torchaudio._extension.utils": TorchaudioLoader,
    "torchcodec": TorchcodecLoader,
}


class Finder:
    """Finds the modules of `LOADERS` as usual, and gives them their loader from there."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in LOADERS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = LOADERS[name](spec.loader.name, spec.loader.path)
        return spec


def has_accelerator() -> bool:
    """Whether torch was built for CUDA or ROCm. Imports torch."""
    import torch

    return bool(torch.version.cuda or torch.version.hip)


def install() -> None:
    """Put the finder first in line, once."""
    if not any(finder is Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder)
