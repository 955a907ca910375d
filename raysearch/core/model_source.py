"""The model that a job names, as plain values: made once from the job's keys, and read wherever the
model is loaded or inspected.
"""

from dataclasses import dataclass

from raysearch.core.prompt_format import PLAIN, PromptFormat


@dataclass(frozen=True)
class ModelSource:
    """The source of a model, and the options for loading it.

    Args:
        path: a local folder, a .gguf file or a hub id, or with `is_factory`
            "package.module:factory" or "/path/file.py:factory".
        dtype: float32, bfloat16 or float16.
        device_map: how accelerate spreads the model over the GPUs that a replica sees (such as
            "auto"); None puts it all on one device.
        trust_remote_code: run the code that comes with the weights.
        prompt_format: the format of its prompts.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    device_map: str | None = None
    trust_remote_code: bool = False
    prompt_format: PromptFormat = PLAIN
    is_factory: bool = False
