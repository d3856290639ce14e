"""What this project adds to vLLM's workers: methods that the engine calls in each of them."""

from pathlib import Path
from typing import Any

from ffaa_core.engine.adapter import Adapter


class AdapterWorker:
    """Mixed into vLLM's worker class as its `worker_extension_cls`."""

    model_runner: Any

    def merge_adapter(self, mllm: str, adapter: str) -> None:
        """Load the weights of `mllm` again, with `adapter` added to each tensor as it passes."""
        self.model_runner.reload_weights(weights_iterator=Adapter.read(Path(adapter)).merged(Path(mllm)))

    def lora_modules(self) -> list[str]:
        """Names of the modules on which vLLM applies a live adapter, with those it fuses taken apart."""
        from vllm.lora.layers import BaseLayerWithLoRA

        model = self.model_runner.get_model()
        names = []
        for name, module in model.named_modules():
            if isinstance(module, BaseLayerWithLoRA):
                parent, _, last = name.rpartition(".")
                names += [f"{parent}.{part}" for part in model.packed_modules_mapping.get(last, [last])]
        return names
