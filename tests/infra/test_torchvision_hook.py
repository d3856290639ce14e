"""The start-up hook, in interpreters of their own: it acts when they start."""

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

HOOK = Path(__file__).parents[2] / "infra" / "torchvision-hook"
NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def run_python(code: str, *path: Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def write_package(folder: Path, name: str, code: str = "", **modules: str) -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(code))
    for module, source in modules.items():
        (package / f"{module}.py").write_text(textwrap.dedent(source))
    return package


def test_torchvision_torchaudio_and_what_is_built_on_them_can_be_imported() -> None:
    result = run_python("""
        import torchvision, torchaudio, torchvision.transforms.v2
        import open_clip, timm, peft
        from transformers import CLIPImageProcessor, CLIPVisionModel, LlavaForConditionalGeneration
        from vllm.v1.engine.async_llm import AsyncLLM
        print(torchvision.transforms.v2.Resize(8))
    """)
    assert "Resize(size=[8]" in result.stdout, result.stderr


def test_torchcodec_is_absent_rather_than_broken() -> None:
    result = run_python("""
        try:
            import torchcodec
        except ImportError as error:
            print(error)
        print("went on")
    """)
    assert result.stdout.endswith("went on\n"), result.stderr


def test_a_torchvision_whose_extension_loads_is_left_alone(tmp_path: Path) -> None:
    torchvision = write_package(
        tmp_path,
        "torchvision",
        f"""
        import torch
        torch.library.define("torchvision::nms", "{NMS}")  # raises where someone else has declared it before
        """,
    )
    loadable = importlib.util.find_spec("markupsafe._speedups")
    assert loadable is not None
    assert loadable.origin is not None
    shutil.copy(loadable.origin, torchvision / "_C.so")

    result = run_python("import torchvision; print('imported')", tmp_path)

    assert result.stdout == "imported\n", result.stderr


def test_a_torch_with_cuda_is_left_alone(tmp_path: Path) -> None:
    write_package(tmp_path, "torch", "from torch import version", version="cuda, hip = '13.0', None")
    write_package(tmp_path, "torchvision")
    write_package(tmp_path, "torchcodec", "raise OSError('libcuda.so.1 is missing')")

    result = run_python(
        """
        import torchvision
        try:
            import torchcodec
        except OSError as error:
            print(error)
        """,
        tmp_path,
    )

    assert result.stdout == "libcuda.so.1 is missing\n", result.stderr


def test_looking_for_torchvision_does_not_import_torch() -> None:
    result = run_python("""
        import sys, importlib.util
        print(importlib.util.find_spec("torchvision").name, "torch" in sys.modules)
    """)
    assert result.stdout == "torchvision False\n", result.stderr


def test_a_broken_torch_does_not_break_the_start_of_python(tmp_path: Path) -> None:
    write_package(tmp_path, "torch", "raise OSError('libtorch.so is damaged')")
    result = run_python("print('up')", tmp_path)
    assert (result.stdout, result.stderr) == ("up\n", "")


def test_a_broken_hook_does_not_break_the_start_of_python(tmp_path: Path) -> None:
    (tmp_path / "ffaa_torchvision_hook.py").write_text("raise OSError('the hook is damaged')")
    result = run_python("print('up')", tmp_path)
    assert (result.stdout, result.returncode) == ("up\n", 0)
    assert "the hook is damaged" in result.stderr


def test_at_the_start_of_python_only_the_import_machinery_is_loaded() -> None:
    result = run_python(
        f"""
        import sys
        before = set(sys.modules)
        sys.path.append({str(HOOK)!r})
        import ffaa_torchvision_hook
        print(*sorted(set(sys.modules) - before))
        """,
        options=("-S",),
    )
    allowed = {"ffaa_torchvision_hook", "__future__", "importlib", "warnings"}
    loaded = {name for name in result.stdout.split() if not name.startswith(("importlib.", "_"))}
    assert "ffaa_torchvision_hook" in loaded, result.stderr
    assert loaded <= allowed
