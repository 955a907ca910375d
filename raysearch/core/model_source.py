"""The model that a job names, as plain values: made once from the job's keys, read by whoever loads
or inspects the model, on any machine."""

from dataclasses import dataclass

from raysearch.core.prompt_format import PLAIN, PromptFormat


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and how it is loaded.

    `path`: a local folder, a .gguf file or a hub id, or with `is_factory`
    "package.module:factory" or "/path/file.py:factory"; `dtype`: float32, bfloat16 or float16.
    `device_map`: how accelerate spreads the model over the GPUs that a replica sees (such as
    "auto"); None: all on one device. `trust_remote_code`: run the code beside the weights.
    `wording`: how texts are put to the model.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    device_map: str | None = None
    trust_remote_code: bool = False
    wording: PromptFormat = PLAIN
    is_factory: bool = False
