"""Published weights to a bundle: all is checked first, then written, and appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError

from ffaa_core.bundle.bundle import MANIFEST, Bundle, write_bundle_json
from ffaa_core.convert.adapter import AdapterSource
from ffaa_core.convert.mids import MidsSource
from ffaa_core.convert.mllm import MllmSource
from ffaa_core.convert.sources import Source
from ffaa_core.convert.text import TextSource
from ffaa_core.convert.tokenizer import TokenizerSource
from ffaa_core.convert.vision import VisionSource
from ffaa_core.convert.weight_files import find_files
from ffaa_core.errors import BundleError, ConfigurationError, StorageError

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
            BundleError: naming, of all sources that can be looked at, what is missing, unknown or unfit.
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
            ConfigurationError: the disk of the directory has too little room.
            StorageError: it could not be written.
        """
        try:
            with _appearing_whole(directory) as scratch:
                _require_room(scratch, self.sources)
                self._write_parts(scratch, advance)
                provenance = {part: source.provenance() for part, source in self.sources.given().items()}
                write_bundle_json(
                    scratch, provenance={"converted from": provenance, "adapter merged": self.merge}
                )
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"cannot write {directory.absolute()}: {error}. Nothing was left there"
            ) from error
        return Bundle.open(directory)

    def _write_parts(self, bundle: Path, advance: Callable[[], None]) -> None:
        self._write_mllm(bundle, advance)
        self._vision.write(bundle / "vision")
        self._text.write(bundle / "text")
        self._mids.write(bundle / "mids")

    def _write_mllm(self, bundle: Path, advance: Callable[[], None]) -> None:
        adapter = self._adapter

        def transform(name: str, tensor: torch.Tensor) -> torch.Tensor:
            advance()
            return adapter.adapter.merge(name, tensor) if adapter and self.merge else tensor

        self._tokenizer.write(bundle / "mllm")
        self._mllm.write(bundle / "mllm", replace=adapter.projector if adapter else None, transform=transform)
        if adapter and not self.merge:
            adapter.write(bundle / "adapter")


@contextmanager
def _appearing_whole(directory: Path) -> Iterator[Path]:
    """A scratch folder in `directory`, where its content goes when the block ends without an error.

    bundle.json goes last: until then there is no bundle. The scratch folder lies inside, since `directory`
    may be a mounted volume or a link to one.
    """
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=directory))
    try:
        yield scratch
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == MANIFEST):
            path.rename(directory / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()


def _require_room(directory: Path, sources: Sources) -> None:
    needed = sum(
        file.stat().st_size for source in sources.given().values() for file in find_files(source.path).files
    )
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise ConfigurationError(
            f"the disk of {directory.absolute()} has {free / 1e9:.3f} GB left and the bundle may need "
            f"{needed / 1e9:.3f} GB: free some space, or give another disk"
        )
