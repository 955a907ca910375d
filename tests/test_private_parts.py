"""The private parts of other packages that raysearch leans on, in one place: each is looked for in
the installed version, and the code has no other."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from raysearch.cluster.ray_session import _TOLERANT_HEALTH_CHECKS

ROOT = Path(__file__).parents[1] / "raysearch"


@dataclass(frozen=True)
class PrivatePart:
    """A part of `package` that it does not promise: `name` stands in the files `used`, for the
    reason `why`. `there` says whether the installed version has it, `seen` in which versions it was
    found."""

    package: str
    name: str
    used: tuple[str, ...]
    why: str
    there: Callable[[], bool]
    seen: str


def _has(path: str) -> Callable[[], bool]:
    """Whether `module:name.name` can be looked up."""
    module, _, names = path.partition(":")

    def there() -> bool:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True

    return there


def _says(module: str, *texts: str) -> Callable[[], bool]:
    """Whether the source of a module has each of `texts`."""

    def there() -> bool:
        source = inspect.getsource(importlib.import_module(module))
        return all(text in source for text in texts)

    return there


def _ray_servers_know() -> bool:
    """Whether the names of `_TOLERANT_HEALTH_CHECKS` are in the program of the GCS, as those of its settings are."""
    import ray

    program = Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server"
    held = program.read_bytes()
    return all(name.encode() in held for name in _TOLERANT_HEALTH_CHECKS)


def _made(make: str, attribute: str) -> Callable[[], bool]:
    """Whether what `module:Class` makes, without arguments, has `attribute`."""
    module, _, name = make.partition(":")
    return lambda: hasattr(getattr(importlib.import_module(module), name)(), attribute)


RAY, TRANSFORMERS, TORCH = "2.52.0, 2.60.0", "4.56.0, 5.23.0", "2.13.0"
LOADING = "engine/loading/"
HALF = "engine/networks/half_precision.py"
SESSION, JOBS = "cluster/ray_session.py", "cluster/jobs.py"

PARTS = (
    PrivatePart(
        "ray",
        "ray._private.state",
        ("cluster/nodes.py",),
        "no public face tells which nodes drain",
        _has("ray._private.state:state.get_draining_nodes"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "ray._private.ray_constants",
        (SESSION,),
        "ENABLE_RAY_CLUSTER is the only switch that lets all servers of a Ray listen on loopback",
        _has("ray._private.ray_constants:ENABLE_RAY_CLUSTER"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "ray._private",
        (SESSION,),
        "way to ray._private.worker, below",
        _has("ray:_private.worker"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "ray._private.authentication.authentication_token_setup",
        (SESSION,),
        "the log whose line on each start, that a token is asked for, is left out",
        _says("ray._private.authentication.authentication_token_setup", "getLogger(__name__)"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "_global_node",
        (SESSION,),
        "the processes of a Ray of our own, whose death is watched",
        lambda: (
            _has("ray._private.worker:_global_node")()
            and _says("ray._private.node", "self.all_processes")()
        ),
        RAY,
    ),
    PrivatePart(
        "mlflow",
        "_initialize_tables",
        ("tracking/mlflow_template.py",),
        "the only way to migrated tables without the rows of a place; without it, no template",
        _has("mlflow.store.db.utils:_initialize_tables"),
        "3.17.2",
    ),
    PrivatePart(
        "torch",
        "_scaled_dot_product_flash_attention_for_cpu",
        ("engine/execution/attention_kernels.py",),
        "attention with its log-sum-exps, which the public function keeps to itself",
        _has("torch:ops.aten._scaled_dot_product_flash_attention_for_cpu"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        ("engine/execution/attention_kernels.py",),
        "attention with its log-sum-exps, which the public function keeps to itself",
        _has("torch:ops.aten._scaled_dot_product_flash_attention_for_cpu_backward"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_scaled_dot_product_flash_attention",
        ("engine/execution/attention_kernels.py",),
        "attention with its log-sum-exps, which the public function keeps to itself",
        _has("torch:ops.aten._scaled_dot_product_flash_attention"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_scaled_dot_product_efficient_attention",
        ("engine/execution/attention_kernels.py",),
        "attention with its log-sum-exps, which the public function keeps to itself",
        _has("torch:ops.aten._scaled_dot_product_efficient_attention"),
        TORCH,
    ),
    PrivatePart(
        "transformers",
        "_attn_implementation",
        ("engine/execution/shared_prefix_attention.py",),
        "the way of attending is named for each call of a block, with no check of the model",
        _says("transformers.configuration_utils", "def _attn_implementation(self, value"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "ray",
        "_py_driver_sys_path",
        (SESSION,),
        "workers are not to import from the driver's folder",
        _made("ray.job_config:JobConfig", "_py_driver_sys_path"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "_system_config",
        (SESSION,),
        "a busy machine that answers late is no dead one",
        lambda: (
            _says("ray._private.worker", 'kwargs.pop("_system_config"')() and _ray_servers_know()
        ),
        RAY,
    ),
    PrivatePart(
        "ray",
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        ("store/locations.py", "cluster/job_environment.py"),
        "says that a driver runs as a Ray job",
        _has("ray._private.runtime_env.constants:RAY_JOB_CONFIG_JSON_ENV_VAR"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "ray._private.runtime_env.packaging",
        (JOBS,),
        "a logger that is chatty at each upload",
        _says("ray._private.runtime_env.packaging", "getLogger("),
        RAY,
    ),
    PrivatePart(
        "ray",
        "ray.dashboard.modules.dashboard_sdk",
        (JOBS,),
        "a logger that is chatty at each upload",
        _says("ray.dashboard.modules.dashboard_sdk", "getLogger(__name__)"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "ray.dashboard.modules.job.sdk",
        (JOBS,),
        "a logger that is chatty at each upload",
        _says("ray.dashboard.modules.job.sdk", "getLogger(__name__)"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "No available agent",
        (JOBS,),
        "a cluster that has just started says so, and is asked again",
        _says("ray.dashboard.modules.job.job_head", "No available agent"),
        RAY,
    ),
    PrivatePart(
        "ray",
        "Running entrypoint for job ",
        (JOBS,),
        "a line that Ray puts before the driver's own, and that is left out",
        _says("ray.dashboard.modules.job.job_supervisor", "Running entrypoint for job "),
        RAY,
    ),
    PrivatePart(
        "transformers",
        "_model_mapping",
        (LOADING + "load.py",),
        "no public face tells which configurations are causal language models",
        _has("transformers:AutoModelForCausalLM._model_mapping"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "transformers",
        "_raise_exceptions_for_missing_entries",
        (LOADING + "adapter.py",),
        "whether a hub's repository has an adapter, without an error for each that has none",
        _says("transformers.utils.hub", "_raise_exceptions_for_missing_entries: bool = True"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "transformers",
        "transformers.utils.chat_template_utils",
        ("engine/encoding/chat_template_process.py",),
        "renders a chat template in a process of its own, without the tokenizer",
        _has("transformers.utils.chat_template_utils:render_jinja_template"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "transformers",
        "transformers.utils.hub",
        (LOADING + "load.py", LOADING + "adapter.py"),
        "cached_file finds files of a hub's repository as transformers itself does",
        _has("transformers.utils.hub:cached_file"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "transformers",
        "transformers.quantizers.auto",
        (LOADING + "quantisation.py",),
        "no public face tells which methods of quantisation are read",
        _has("transformers.quantizers.auto:AUTO_QUANTIZATION_CONFIG_MAPPING"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "transformers",
        "transformers.pytorch_utils",
        (HALF,),
        "Conv1D is the linear layer of GPT-2",
        _has("transformers.pytorch_utils:Conv1D"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "transformers",
        "transformers.modeling_gguf_pytorch_utils",
        (LOADING + "load.py",),
        "tqdm there is a bar that has no switch",
        _has("transformers.modeling_gguf_pytorch_utils:tqdm"),
        TRANSFORMERS,
    ),
    PrivatePart(
        "huggingface_hub",
        "huggingface_hub.utils._http",
        (LOADING + "load.py",),
        "a logger that says each retry in two lines, in place of which one says all",
        _says("huggingface_hub.utils._http", "thrown while requesting", "Retrying in "),
        "2.4.0",
    ),
    PrivatePart(
        "torch",
        "_forward_hooks",
        (LOADING + "given_model.py",),
        "hooks of a model that was given as an object count in its digest",
        _made("torch.nn:Module", "_forward_hooks"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_forward_pre_hooks",
        (LOADING + "given_model.py",),
        "hooks of a model that was given as an object count in its digest",
        _made("torch.nn:Module", "_forward_pre_hooks"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_version",
        (HALF,),
        "whether a weight was written to since it was copied",
        _made("torch:Tensor", "_version"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_is_amx_tile_supported",
        (HALF,),
        "what the processor multiplies fast; where torch cannot say, no is taken",
        _has("torch:cpu._is_amx_tile_supported"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_is_amx_fp16_supported",
        (HALF,),
        "whether vectors of float16 go in blocks: without it, they do not",
        _has("torch:cpu._is_amx_fp16_supported"),
        TORCH,
    ),
    PrivatePart(
        "torch",
        "_is_mkldnn_fp16_supported",
        (HALF,),
        "what the processor multiplies fast; where torch cannot say, no is taken",
        _has("torch:ops.mkldnn._is_mkldnn_fp16_supported"),
        TORCH,
    ),
    PrivatePart(
        "pydantic",
        "__pydantic_base_init__",
        ("job/job.py",),
        "a job's own __init__ words its errors; `parse` validates without it",
        _says("pydantic._internal._model_construction", "__pydantic_base_init__"),
        "2.9.0, 2.14.3",
    ),
)

PUBLIC = {
    *("ray.exceptions", "ray.job_config", "ray.job_submission", "ray.util"),
    *("transformers.utils", "huggingface_hub.errors", "huggingface_hub.utils.tqdm"),
}
"""Modules of others that their documentation names."""
DOCUMENTED = {"_replace", "_exit", "_getframe", "_data_files"}
"""Names that begin with an underscore and are documented (Python), or are keys of a file that is
read (datasets)."""
LEANED_ON = ("ray", "transformers", "huggingface_hub")
"""Packages of which every module that is imported is in PARTS or in PUBLIC."""
_PRIVATE = re.compile(r"_[a-zA-Z]\w*|__pydantic\w+")


def _own(trees: dict[str, ast.Module]) -> set[str]:
    """Private names that raysearch gives itself."""
    names = set()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def private_names(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Each private name of others that `tree` uses: attributes, keywords, names in quotes that a
    function is given, modules."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, value=value):
                whole = ast.unparse(node)
                if re.match(rf"({'|'.join(LEANED_ON)})\._[a-z]", whole):
                    yield ".".join(whole.split(".")[:2])
                if not (isinstance(value, ast.Name) and value.id in ("self", "cls")):
                    yield from _if_private(name, own)
            case ast.keyword(arg=str(name)):
                yield from _if_private(name, own)
            case ast.Call(args=arguments):
                for argument in arguments:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield from _if_private(argument.value, own)
            case ast.Import(names=names):
                yield from filter(_is_private_module, (alias.name for alias in names))
            case ast.ImportFrom(module=str(module), names=names):
                inner = module.rpartition(".")[2].startswith("_")  # its names are modules
                imported = [f"{module}.{alias.name}" for alias in names] if inner else [module]
                yield from filter(_is_private_module, imported)
            case ast.Constant(value=str(text)):
                if re.fullmatch(
                    rf"({'|'.join(LEANED_ON)})(\.\w+){{2,}}|transformers\.modeling\w+", text
                ):
                    yield text


def _if_private(name: str, own: set[str]) -> Iterator[str]:
    if _PRIVATE.fullmatch(name) and name not in own | DOCUMENTED and name != "_private":
        yield name


def _is_private_module(name: str) -> bool:
    return "." in name and name.split(".")[0] in LEANED_ON and name not in PUBLIC


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {
        file.relative_to(ROOT).as_posix(): ast.parse(file.read_text())
        for file in sorted(ROOT.rglob("*.py"))
    }


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.package}:{part.name}")
def test_a_private_part_is_in_the_installed_version(part: PrivatePart) -> None:
    assert part.there(), (
        f"{part.package} {version(part.package)} has no {part.name} any more (seen in "
        f"{part.seen}); raysearch/{', '.join(part.used)}: {part.why}"
    )


def test_the_code_uses_no_private_part_that_the_table_lacks(trees: dict[str, ast.Module]) -> None:
    own, known = _own(trees), {(file, part.name) for part in PARTS for file in part.used}
    found = {(file, name) for file, tree in trees.items() for name in private_names(tree, own)}
    assert found - known == set()


def test_the_table_has_no_part_that_the_code_does_without(trees: dict[str, ast.Module]) -> None:
    unused = [
        (file, part.name)
        for part in PARTS
        for file in part.used
        if part.name not in (text := (ROOT / file).read_text())
        and not all(half in text for half in part.name.rsplit(".", 1))
    ]
    assert unused == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("model._attn_implementation", "_attn_implementation"),
        ("import ray\nray._private.worker.x", "ray._private"),
        ("from ray._private import ray_constants", "ray._private.ray_constants"),
        ("from ray._private.state import state", "ray._private.state"),
        ("import transformers.cache_utils", "transformers.cache_utils"),
        ("from transformers.integrations import sdpa", "transformers.integrations"),
        ("getattr(model, '_tied_weights_keys', None)", "_tied_weights_keys"),
        ("ray.init(_temp_dir='/x')", "_temp_dir"),
        ("logging.getLogger('ray._private.services')", "ray._private.services"),
        ("logging.getLogger('huggingface_hub.utils._http')", "huggingface_hub.utils._http"),
    ],
)
def test_the_grep_finds_private_parts_of_each_kind(code: str, name: str) -> None:
    assert name in set(private_names(ast.parse(code), own=set()))


@pytest.mark.parametrize(
    "code",
    ["self._x", "own._mine", "parts._replace(a=1)", "from raysearch._version import __version__"],
)
def test_the_grep_passes_over_what_is_ours_or_documented(code: str) -> None:
    assert set(private_names(ast.parse(code), own={"_mine"})) == set()
