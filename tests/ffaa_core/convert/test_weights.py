"""Files of weights: read whatever their format, refused by name when something is wrong, and written."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa_core.convert.weights import Weights, check, write_weights
from ffaa_core.errors import BundleError

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    layers = {f"layers.{i}.weight": torch.randn(4, 6, generator=generator) for i in range(4)}
    return layers | {
        "fp16": torch.ones(3, dtype=torch.float16),
        "bf16": torch.ones(2, 2, dtype=torch.bfloat16),
    }


def assert_equal(found: Mapping[str, torch.Tensor], expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def save_old(tensors: Tensors, file: Path) -> None:
    torch.save(tensors, file, _use_new_zipfile_serialization=False)


def save_training(tensors: Tensors, file: Path) -> None:
    torch.save({"epoch": 3, "state_dict": tensors}, file)


def save_torchscript(tensors: Tensors, file: Path) -> None:
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        inner = module
        for step in path:
            if not hasattr(inner, step):
                inner.add_module(step, torch.nn.Module())
            inner = getattr(inner, step)
        inner.register_buffer(last, tensor)
    torch.jit.script(module).save(str(file))


@pytest.mark.parametrize(
    ("file", "save"),
    [
        ("weights.safetensors", save_file),
        ("pytorch_model.bin", torch.save),
        ("weights.pth", torch.save),
        ("old.bin", save_old),
        ("training.pt", save_training),
        ("ViT-L-14-336px.pt", save_torchscript),
    ],
)
def test_every_format_gives_names_shapes_and_values(
    tmp_path: Path, tensors: Tensors, file: str, save: Callable[[Tensors, Path], None]
) -> None:
    save(tensors, tmp_path / file)

    weights = Weights.open(tmp_path / file)

    assert weights.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert_equal(dict(weights.items()), tensors)
    assert torch.equal(weights.read("fp16"), tensors["fp16"])
    assert [name for name, _ in weights.items(["layers.2.weight"])] == ["layers.2.weight"]


@pytest.mark.parametrize(
    "files",
    [
        ["model.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
        ["adapter_model.bin"],
        ["open_clip_pytorch_model.bin"],
    ],
)
def test_a_folder_is_read_by_its_usual_names(tmp_path: Path, tensors: Tensors, files: list[str]) -> None:
    for i, file in enumerate(files):
        part = dict(list(tensors.items())[i :: len(files)])
        (save_file if file.endswith("safetensors") else torch.save)(part, tmp_path / file)

    assert_equal(dict(Weights.open(tmp_path).items()), tensors)


def test_safetensors_win_where_both_are(tmp_path: Path, tensors: Tensors) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")

    assert Weights.open(tmp_path).shapes.keys() == tensors.keys()


def test_tensors_are_renamed_and_left_out(tmp_path: Path, tensors: Tensors) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    weights = Weights.open(tmp_path / "a.safetensors")

    renamed = weights.renamed(lambda name: f"new.{name}" if "layers" in name else None)

    assert_equal(dict(renamed.items()), {f"new.{name}": t for name, t in tensors.items() if "layers" in name})
    assert "new.layers.0.weight" in renamed
    assert "fp16" not in renamed
    with pytest.raises(BundleError, match=r"same twice, as layers\.0\.weight and as layers\.1\.weight"):
        weights.renamed(lambda name: "same" if "layers" in name else name)


def test_written_shards_come_back_equal_and_transformers_can_find_them(
    tmp_path: Path, tensors: Tensors
) -> None:
    tensors |= {"tied": tensors["fp16"], "turned": tensors["layers.0.weight"].T}
    torch.save(tensors, tmp_path / "source.bin")
    source = Weights.open(tmp_path / "source.bin")

    write_weights(tmp_path / "out", source.meta, source.items, shard_bytes=250)

    assert_equal(dict(Weights.open(tmp_path / "out").items()), tensors)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert {name: shard for shard in shards for name in load_file(tmp_path / "out" / shard)} == index[
        "weight_map"
    ]


def test_what_is_not_as_planned_is_not_written(tmp_path: Path) -> None:
    layout = {"a": torch.empty(2, device="meta")}

    with pytest.raises(BundleError, match=r"a came as \(2,\) of torch.float16"):
        write_weights(tmp_path, layout, lambda names: [("a", torch.ones(2, dtype=torch.float16))])
    with pytest.raises(BundleError, match="a came as nothing"):
        write_weights(tmp_path, layout, lambda names: [])
    assert not list(tmp_path.glob("*.safetensors"))


class RunsCode:
    """What a pickle can be made to do when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    file, trace = tmp_path / "mids.pth", tmp_path / "ran"
    torch.save({"weight": torch.ones(1), "bad": RunsCode(trace)}, file)

    with pytest.raises(BundleError, match=r"mids\.pth is a pickle that could run code.*posix\.system"):
        Weights.open(file)

    assert not trace.exists()


@pytest.mark.parametrize("save", [save_file, torch.save, save_old, save_torchscript])
@pytest.mark.parametrize("left", [0.0, 0.05, 0.5, 0.97])
def test_a_truncated_file_is_refused_by_its_name(
    tmp_path: Path, tensors: Tensors, save: Callable[[Tensors, Path], None], left: float
) -> None:
    file = tmp_path / ("cut.safetensors" if save is save_file else "cut.bin")
    save(tensors, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * left)])

    with pytest.raises(BundleError, match=rf"{file} is truncated, or not a"):
        Weights.open(file)


@pytest.mark.parametrize("file", ["a.safetensors", "a.bin"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("<html>Please log in</html>")

    with pytest.raises(BundleError, match=rf"{file} is truncated, or not a"):
        Weights.open(tmp_path / file)


def test_what_is_not_a_tensor_is_named(tmp_path: Path) -> None:
    torch.save({"step": 3, "weight": torch.ones(1)}, tmp_path / "a.bin")
    torch.save([torch.ones(1)], tmp_path / "b.bin")

    with pytest.raises(BundleError, match="entries that are not tensors: step"):
        Weights.open(tmp_path / "a.bin")
    with pytest.raises(BundleError, match="holds a list"):
        Weights.open(tmp_path / "b.bin")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()

    with pytest.raises(BundleError, match="there is no file or folder"):
        Weights.open(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"holds no weights: none of model\*\.safetensors"):
        Weights.open(tmp_path)
    with pytest.raises(BundleError, match=r"ends in none of \.safetensors"):
        Weights.open(tmp_path / "readme.txt")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    for i in (1, 2):
        torch.save(tensors if i == 1 else {"fp16": tensors["fp16"]}, tmp_path / f"model-0000{i}-of-00002.bin")
        save_file({"fp16": tensors["fp16"]}, tmp_path / f"model-0000{i}-of-00002.safetensors")

    with pytest.raises(
        BundleError, match=r"fp16 in model-00001-of-00002.safetensors and model-00002-of-00002"
    ):
        Weights.open(tmp_path)


def test_a_missing_shard_is_named_with_and_without_an_index(tmp_path: Path, tensors: Tensors) -> None:
    meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
    write_weights(tmp_path, meta, lambda names: [(name, tensors[name]) for name in names], shard_bytes=100)
    gone = sorted(tmp_path.glob("model-00002*"))[0]
    gone.unlink()

    with pytest.raises(BundleError, match=rf"index\.json names files that are not there: {gone.name}"):
        Weights.open(tmp_path)

    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(BundleError, match="number 2 is missing"):
        Weights.open(tmp_path)


def test_an_index_that_contradicts_its_shards_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    file = "model-00001-of-00001.safetensors"
    save_file(tensors, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*tensors, "absent"], file)}))

    with pytest.raises(BundleError, match=f"names tensors that are not where it says: absent in {file}"):
        Weights.open(tmp_path)

    for content, told in (
        ("[]", "not a JSON object"),
        ('{"weight_map": null}', "is not an index of weights"),
    ):
        index.write_text(content)
        with pytest.raises(BundleError, match=f"{index.name} .*{told}"):
            Weights.open(tmp_path)


def test_check_names_every_missing_unknown_and_mis_shaped_tensor() -> None:
    expected = {f"layers.{i}.{kind}.weight": (4, 4) for i in range(12) for kind in "qk"} | {"norm": (4,)}
    found = {name: shape for name, shape in expected.items() if ".q." not in name}
    found |= {"layers.3.k.weight": (4, 5), "norm": (5,), "extra": (1, 2), "layers.12.k.weight": (4, 4)}
    del found["layers.5.k.weight"]

    with pytest.raises(BundleError) as refused:
        check(found, expected, "the model in /x")

    message = str(refused.value)
    assert message.startswith("the model in /x has not the weights it should have.")
    assert message.splitlines()[1:-1] == [
        "  missing: layers.{0..11}.q.weight (4, 4)",
        "  missing: layers.5.k.weight (4, 4)",
        "  unknown: extra (1, 2)",
        "  unknown: layers.12.k.weight (4, 4)",
        "  of the wrong shape: layers.3.k.weight (4, 5), expected (4, 4)",
        "  of the wrong shape: norm (5,), expected (4,)",
    ]


def test_without_a_limit_there_is_one_file(tmp_path: Path, tensors: Tensors) -> None:
    meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
    write_weights(tmp_path, meta, lambda names: [(name, tensors[name]) for name in names], shard_bytes=None)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_check_passes_what_is_as_expected() -> None:
    check({"a": (1, 2)}, {"a": (1, 2)}, "it")
