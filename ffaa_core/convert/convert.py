"""Published weights to a bundle: all is checked first, then written, and appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import torch

from ffaa_core.bundle.bundle import Bundle, write_bundle_json
from ffaa_core.convert.adapter import AdapterSource
from ffaa_core.convert.mids import MidsSource
from ffaa_core.convert.mllm import MllmSource
from ffaa_core.convert.sources import Source
from ffaa_core.convert.text import TextSource
from ffaa_core.convert.tokenizer import TokenizerSource
from ffaa_core.convert.vision import VisionSource
from ffaa_core.convert.weight_files import find_files
from ffaa_core.errors import BundleError, ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the parts are taken from; `mllm` is a whole checkpoint, to which `adapter` belongs."""

    mllm: Source
    adapter: Source | None
    mids: Source
    vision: Source
    text: Source

    def given(self) -> dict[str, Source]:
        """Each source by its part."""
        by_part = {field.name: getattr(self, field.name) for field in fields(self)}
        return {part: source for part, source in by_part.items() if source is not None}


class Conversion:
    """Sources that were read and found to fit each other."""

    def __init__(self, sources: Sources, *, merge: bool) -> None:
        """Check everything that can be checked without reading values.

        Args:
            merge: add the adapter to the weights instead of keeping it as a part of its own.

        Raises:
            BundleError: naming, for all sources together, whatever is missing, unknown or does not fit.
        """
        if (sources.mllm.path / "adapter_config.json").is_file():
            raise BundleError(
                f"{sources.mllm.path} is an adapter, no whole checkpoint: name the one it was trained from "
                "with --base"
            )
        self.sources, self.merge = sources, merge
        problems: list[str] = []

        def checked(check: Callable[[], T]) -> T | None:
            try:
                return check()
            except BundleError as error:
                problems.append(str(error))
                return None

        tokenizer = checked(lambda: TokenizerSource(sources.mllm.path))
        vision = checked(lambda: VisionSource(sources.vision.path))
        text = checked(lambda: TextSource(sources.text.path))
        mllm = checked(lambda: MllmSource(sources.mllm.path, tokenizer, vision)) if tokenizer else None
        adapter = None
        if mllm and (of_adapter := sources.adapter):
            shapes = mllm.shapes
            adapter = checked(lambda: AdapterSource(of_adapter.path, shapes))
        mids = checked(lambda: MidsSource(sources.mids.path, vision, text)) if vision and text else None
        if problems or not (tokenizer and mllm and vision and text and mids):
            raise BundleError("\n".join(problems))
        self._tokenizer, self._mllm, self._adapter = tokenizer, mllm, adapter
        self._vision, self._text, self._mids = vision, text, mids

    @property
    def steps(self) -> int:
        """How often `write` calls `advance`."""
        return len(self._mllm.shapes)

    def write(self, directory: Path, advance: Callable[[], None] = lambda: None) -> Bundle:
        """Write the bundle to `directory`, which must be new or empty.

        Args:
            advance: called after each tensor of the multimodal LLM, for a progress bar.

        Raises:
            ConfigurationError: the directory is in use, or its disk has too little room.
        """
        _require_room(directory, self.sources)
        with _appearing_whole(directory) as scratch:
            self._write_mllm(scratch, advance)
            self._vision.write(scratch / "vision")
            self._text.write(scratch / "text")
            self._mids.write(scratch / "mids")
            provenance = {part: source.provenance() for part, source in self.sources.given().items()}
            write_bundle_json(
                scratch, provenance={"converted from": provenance, "adapter merged": self.merge}
            )
        return Bundle.open(directory)

    def _write_mllm(self, bundle: Path, advance: Callable[[], None]) -> None:
        adapter = self._adapter

        def transform(name: str, tensor: torch.Tensor) -> torch.Tensor:
            advance()
            return adapter.adapter.merge(name, tensor) if adapter and self.merge else tensor

        self._tokenizer.write(bundle / "mllm")
        self._mllm.write(bundle / "mllm", replace=adapter.projector if adapter else None, transform=transform)
        if adapter and not self.merge:
            adapter.write(bundle / "adapter")


def _require_room(directory: Path, sources: Sources) -> None:
    needed = sum(
        file.stat().st_size for source in sources.given().values() for file in find_files(source.path).files
    )
    place = directory.absolute().parent
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ConfigurationError(
            f"{place} has {free / 1e9:.1f} GB left and the bundle may need {needed / 1e9:.1f} GB: "
            "free some space, or give another disk"
        )


@contextmanager
def _appearing_whole(directory: Path) -> Iterator[Path]:
    """A scratch folder beside `directory` that takes its name when the block ends without an error."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.absolute().parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
