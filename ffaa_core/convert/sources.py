"""Published weights on this disk, on S3 or on the Hugging Face hub; what is elsewhere is fetched once."""

import hashlib
import re
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub.errors import CachedRepoTreeNotFoundError

from ffaa_core.bundle.bundle import file_digest
from ffaa_core.bundle.cache import cache_directory, made_once
from ffaa_core.convert.weight_files import find_files
from ffaa_core.errors import BundleError
from ffaa_core.storage import ObjectInfo, Store, locate

PLACES = (
    "Give a folder or file of this machine, s3://bucket/prefix, or a hub id such as name/model[@revision]"
)
CHUNK = 64 * 2**20

_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./-]+))?")
_PROJECTOR = "non_lora_trainables.bin"
_USED = ("*.json", "*.model", "*.safetensors", "*.bin", "*.pt", "*.pth")
_OF_TRAINING = ("optimizer*", "scheduler*", "rng_state*", "training_args.bin", "trainer_state.json")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights on this disk, what the user called them, and of those from a hub the commit."""

    name: str
    path: Path
    commit: str | None = None

    def provenance(self) -> dict[str, object]:
        """The name, and of every file of weights and all that describes them the sha256."""
        files = set(find_files(self.path).files)
        if self.path.is_dir():
            files |= {*self.path.glob("*.json"), *self.path.glob("*.model"), *self.path.glob(_PROJECTOR)}
        digests = {file.name: file_digest(file) for file in sorted(files)}
        return {"source": self.name, "commit": self.commit, "sha256": digests}


def find_source(name: str) -> Source:
    """The weights `name` says: a path if there is such a one, else what is fetched into the user's cache.

    Args:
        name: a path, `s3://bucket/prefix` or an object's URL, or `name/model[@revision][/file]` of the hub.

    Raises:
        BundleError: there is nothing of that name.
        ConfigurationError: it lies on a storage of another kind, or bucket or credentials are wrong.
        StorageError: the storage failed.
    """
    if "://" in name:
        return Source(name=name, path=_fetch_objects(name))
    if Path(name).exists():
        return Source(name=name, path=Path(name))
    hub_id = _HUB_ID.fullmatch(name)
    if hub_id is None:
        raise BundleError(f"there is no file or folder {name}. {PLACES}")
    return _fetch_from_hub(name, hub_id["repo"], hub_id["revision"], hub_id["file"])


def _fetch_objects(url: str) -> Path:
    """One object, or those right below a prefix. Objects that were replaced are fetched again."""
    store, key = locate(url.rstrip("/"))
    listed = list(store.list(key))
    found = [each for each in listed if each.key == key]
    if not found:
        below = {each.key.removeprefix(f"{key}/"): each for each in listed if each.key.startswith(f"{key}/")}
        found = [below[name] for name in _needed(below)]
    if not found:
        raise BundleError(f"nothing lies at {url}. {PLACES}")
    versions = "".join(f"{each.uri} {each.version}\n" for each in found)
    folder = cache_directory() / "sources" / hashlib.sha256(versions.encode()).hexdigest()[:32]
    made_once(folder, lambda scratch: _download(store, found, scratch))
    return folder / Path(key).name if found[0].key == key else folder


def _download(store: Store, objects: Collection[ObjectInfo], folder: Path) -> None:
    for each in objects:
        print(f"fetching {each.uri} ({each.size / 1e9:.2f} GB)", file=sys.stderr)
        with store.open(each.key) as source, (folder / Path(each.key).name).open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)


def _needed(names: Collection[str]) -> list[str]:
    """Of a folder those names that a conversion may read: of weights in two formats the safetensors."""
    used = [
        name
        for name in names
        if "/" not in name
        and any(fnmatch(name, pattern) for pattern in _USED)
        and not any(fnmatch(name, pattern) for pattern in _OF_TRAINING)
    ]
    has_safetensors = any(fnmatch(name, "model*.safetensors") for name in used)
    return [name for name in used if not (has_safetensors and fnmatch(name, "pytorch_model*.bin"))]


def _fetch_from_hub(name: str, repo: str, revision: str | None, file: str | None) -> Source:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repo, file, revision=revision) if file else _snapshot(repo, revision))
    except Exception as error:  # the client raises its own errors and those of its HTTP library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BundleError(
            f"there is no file or folder {name} here, and the hub does not give it: {reason}. {PLACES}; a "
            "private or gated model of the hub needs `hf auth login`"
        ) from error
    return Source(name=name, path=path, commit=path.parts[path.parts.index("snapshots") + 1])


def _snapshot(repo: str, revision: str | None) -> str:
    """The folder of a model in the hub's own cache, which does without a network if it has the model."""
    from huggingface_hub import get_cached_repo_tree, list_repo_files, snapshot_download

    try:
        names = list_repo_files(repo, revision=revision)
    except Exception as error:
        try:
            names = [file.path for file in get_cached_repo_tree(repo, revision=revision)]
        except CachedRepoTreeNotFoundError:
            raise error from None
    return snapshot_download(repo, revision=revision, allow_patterns=_needed(names))
