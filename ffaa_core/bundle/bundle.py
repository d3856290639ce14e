"""A bundle on disk: `bundle.json` and the parts it names.

bundle.json    format, provenance, warning; of every part the digest, and of every file its size and sha256
mllm/          the multimodal LLM (Transformers LLaVA layout, published names) and its tokenizer
adapter/       its LoRA adapter (PEFT); optional
mids/          what was trained of MIDS (safetensors), and its config
vision/        MIDS's image encoder (open_clip layout)
text/          MIDS's text encoder (T5, Transformers layout) and its tokenizer
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ffaa_core.errors import BundleError

MANIFEST = "bundle.json"

PartName = Literal["mllm", "adapter", "mids", "vision", "text"]
PARTS: tuple[PartName, ...] = get_args(PartName)
REQUIRED_PARTS: tuple[PartName, ...] = ("mllm", "mids", "vision", "text")


def _stays_inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ValueError(f"{name!r} leads out of the bundle")
    return name


FileName = Annotated[str, AfterValidator(_stays_inside)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """What one file must be."""

    bytes: int
    sha256: str


class Part(_Strict):
    """One part: its digest and its files by name, relative to the part's folder."""

    sha256: str
    files: dict[FileName, FileEntry]


class Manifest(_Strict):
    """The content of bundle.json. `warning` is shown wherever a verdict of this bundle is."""

    format: Literal["ffaa-bundle"] = "ffaa-bundle"
    version: Literal[1] = 1
    warning: str | None = None
    provenance: dict[str, Any]
    parts: dict[PartName, Part]

    @classmethod
    def parse(cls, content: bytes, source: object) -> Self:
        """Read bundle.json's bytes; `source` is what errors call it.

        Raises:
            BundleError: it is none, of a version this code does not know, or without a required part.
        """
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"]) or "the whole file"
            raise BundleError(
                f"{source} is not the manifest of a bundle this version reads: {where}: {first['msg']}"
            ) from None
        missing = [part for part in REQUIRED_PARTS if part not in manifest.parts]
        if missing:
            raise BundleError(
                f"{source} names no {', '.join(missing)}; a bundle has {', '.join(REQUIRED_PARTS)}"
            )
        return manifest

    def files(self) -> dict[str, FileEntry]:
        """Every file of every part, by its name within the bundle."""
        return {
            f"{part}/{name}": entry for part, of in self.parts.items() for name, entry in of.files.items()
        }

    @property
    def digests(self) -> dict[str, str]:
        """Part to the sha256 over its files' names and contents."""
        return {name: part.sha256 for name, part in self.parts.items()}


@dataclass(frozen=True)
class Bundle:
    """A bundle that is there: every file its manifest names exists and has the right size.

    `location` is the absolute path or the URL it was opened by, and by which another machine opens it.
    """

    path: Path
    manifest: Manifest
    location: str

    @classmethod
    def open(cls, path_or_uri: str | Path, sha256: str | None = None) -> Self:
        """Open a bundle, cheaply: contents are not read. A URL is fetched into the user's cache first, once.

        Args:
            sha256: of its bundle.json, which states the digests of everything else; None takes any bundle.

        Raises:
            BundleError: there is no bundle, it is another than `sha256`, or files are missing or of another
                size.
            ConfigurationError: a URL is of an unknown kind, or its bucket or credentials are wrong.
            StorageError: the URL's storage failed.
        """
        location = str(path_or_uri).removeprefix("file://")
        if "://" in location:
            from ffaa_core.bundle.fetch import fetch

            return replace(cls.open(fetch(location, sha256)), location=location)
        path = Path(location).expanduser().absolute()
        try:
            content = (path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(
                f"no bundle at {path}: it has no {MANIFEST}. Give the folder or URL of a bundle, or make "
                f"one: ffaa bundle demo DIR"
            ) from None
        except OSError as error:
            raise BundleError(f"the bundle at {path} cannot be read: {error}") from error
        require_sha256(content, sha256, path / MANIFEST)
        bundle = cls(path, Manifest.parse(content, path / MANIFEST), str(path))
        bundle._check_sizes()
        return bundle

    @property
    def mllm(self) -> Path:
        return self.path / "mllm"

    @property
    def adapter(self) -> Path | None:
        """None where the bundle has none, its model being complete without."""
        return self.path / "adapter" if "adapter" in self.manifest.parts else None

    @property
    def mids(self) -> Path:
        return self.path / "mids"

    @property
    def vision(self) -> Path:
        return self.path / "vision"

    @property
    def text(self) -> Path:
        return self.path / "text"

    @property
    def digests(self) -> dict[str, str]:
        """Part to the sha256 over its files' names and contents, as the manifest states it."""
        return self.manifest.digests

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the weights are from and how they were made."""
        return self.manifest.provenance

    @property
    def warning(self) -> str | None:
        """What must be said with every verdict of this bundle, if anything."""
        return self.manifest.warning

    def verify(self, parts: Collection[str] = PARTS) -> None:
        """Read every file of `parts` and compare it with the manifest.

        Raises:
            BundleError: each file that differs, is missing, or is not in the manifest, by name.
        """
        found = {name: part for name in parts if (part := describe_part(self.path / name)).files}
        stated = self.manifest.parts
        problems = []
        for name in parts:
            is_there = found[name].files if name in found else {}
            is_stated = stated[name].files if name in stated else {}
            for file in sorted(is_there.keys() | is_stated.keys()):
                if file not in is_there:
                    problems.append(f"{name}/{file} is missing")
                elif file not in is_stated:
                    problems.append(f"{name}/{file} is not in the manifest")
                elif is_there[file] != is_stated[file]:
                    problems.append(f"{name}/{file} differs")
            if name in stated and stated[name].sha256 != part_digest(is_stated):
                problems.append(f"the digest of {name} is not that of its files")
        if problems:
            raise BundleError(f"the bundle at {self.path} is damaged: {'; '.join(problems)}. {RENEW}")

    def _check_sizes(self) -> None:
        problems = []
        for name, entry in self.manifest.files().items():
            try:
                size = (self.path / name).stat().st_size
            except OSError:
                problems.append(f"{name} is missing")
                continue
            if size != entry.bytes:
                problems.append(f"{name} has {size} bytes and not {entry.bytes}")
        if problems:
            raise BundleError(f"the bundle at {self.path} is incomplete: {'; '.join(problems)}. {RENEW}")


RENEW = "Copy or make it again; for a copy in the cache, delete its folder"


def require_sha256(content: bytes, sha256: str | None, source: object) -> str:
    """The sha256 of bundle.json's bytes, which must be `sha256` unless that is None.

    Raises:
        BundleError: it is another; `source` is what the error calls the file.
    """
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise BundleError(
            f"{source} has the sha256 {found}, not {sha256}: another bundle lies there than the one that was "
            "asked for. Give the address of that one, or ask for this one: --sha256 of `ffaa bundle fetch`, "
            "FFAA_BUNDLE_SHA256 elsewhere"
        )
    return found


def write_bundle_json(
    directory: Path, *, provenance: Mapping[str, Any], warning: str | None = None
) -> Bundle:
    """Describe the parts lying in `directory` in its bundle.json, which makes it a bundle all may read.

    Raises:
        BundleError: a required part is not there.
    """
    parts = {name: part for name in PARTS if (part := describe_part(directory / name)).files}
    missing = [name for name in REQUIRED_PARTS if name not in parts]
    if missing:
        raise BundleError(f"{directory} is no bundle yet: nothing lies in {', '.join(missing)}")
    for name, part in parts.items():
        for file in part.files:
            (directory / name / file).chmod(0o644)  # safetensors writes files for their owner alone
    manifest = Manifest(warning=warning, provenance=dict(provenance), parts=parts)
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Bundle.open(directory)


def describe_part(directory: Path) -> Part:
    """Sizes and digests of all files under `directory`, which may not exist."""
    files = {
        file.relative_to(directory).as_posix(): FileEntry(bytes=file.stat().st_size, sha256=file_digest(file))
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }
    return Part(sha256=part_digest(files), files=files)


def part_digest(files: Mapping[str, FileEntry]) -> str:
    """The sha256 over the names and contents of a part's files, whatever their order."""
    lines = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(file: Path) -> str:
    """The sha256 of a file's content, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
