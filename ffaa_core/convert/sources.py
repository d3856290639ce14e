"""Published weights on this disk, on S3 or on the Hugging Face hub; what is elsewhere is fetched once."""

import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ffaa_core.bundle.bundle import file_digest
from ffaa_core.bundle.cache import cache_directory, made_once
from ffaa_core.convert.weight_files import find_files
from ffaa_core.errors import BundleError
from ffaa_core.storage import ObjectInfo, Store, locate

WANTED = (
    "Give a folder or file of this machine, s3://bucket/prefix, or a hub id such as name/model[@revision]"
)
CHUNK = 64 * 2**20

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./-]+))?")
_DESCRIBING = (".json", ".model")
_USED = ("*.json", "*.model", "*.safetensors", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights on this disk, what the user called them, and of those from a hub the commit."""

    name: str
    path: Path
    commit: str | None = None

    def provenance(self) -> dict[str, object]:
        """The name, and of every file that says something of the model its sha256."""
        files = set(find_files(self.path).files)
        if self.path.is_dir():
            files |= {file for file in self.path.iterdir() if file.suffix in _DESCRIBING}
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
        raise BundleError(f"there is no file or folder {name}. {WANTED}")
    return _fetch_from_hub(name, hub_id["repo"], hub_id["revision"], hub_id["file"])


def _fetch_objects(url: str) -> Path:
    """One object, or those right below a prefix. Objects that were replaced are fetched again."""
    store, key = locate(url.rstrip("/"))
    listed = list(store.list(key))
    found = [each for each in listed if each.key == key]
    found = found or [each for each in listed if each.key.rpartition("/")[0] == key and each.size]
    if not found:
        raise BundleError(f"nothing lies at {url}. {WANTED}")
    versions = "".join(f"{each.uri} {each.version}\n" for each in found)
    folder = cache_directory() / "sources" / hashlib.sha256(versions.encode()).hexdigest()[:32]
    made_once(folder, lambda scratch: _download(store, found, scratch))
    return folder / Path(key).name if found[0].key == key else folder


def _download(store: Store, objects: Collection[ObjectInfo], folder: Path) -> None:
    for each in objects:
        print(f"fetching {each.uri} ({each.size / 1e9:.2f} GB)", file=sys.stderr)
        with store.open(each.key) as source, (folder / Path(each.key).name).open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)


def _fetch_from_hub(name: str, repo: str, revision: str | None, file: str | None) -> Source:
    from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download

    def of_hub(fetch: Callable[[], str]) -> Path:
        try:
            return Path(fetch())
        except (OSError, ValueError) as error:  # the hub's own errors are OSErrors or ValueErrors
            raise BundleError(
                f"there is no file or folder {name} here, and the hub does not give it: "
                f"{str(error).strip().splitlines()[0]}. {WANTED}"
            ) from error

    if file:
        path = of_hub(lambda: hf_hub_download(repo, file, revision=revision))
        return Source(name=name, path=path, commit=path.parent.name)

    def snapshot() -> str:
        names = list_repo_files(repo, revision=revision)
        doubled = ["pytorch_model*.bin"] if any(n.endswith(".safetensors") for n in names) else []
        return snapshot_download(
            repo, revision=revision, allow_patterns=list(_USED), ignore_patterns=["*/*", *doubled]
        )

    path = of_hub(snapshot)
    return Source(name=name, path=path, commit=path.name)
