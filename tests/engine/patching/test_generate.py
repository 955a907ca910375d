"""Generation under intervention, against plain forward passes that know no cache."""

import pytest
import torch
from torch import Tensor

from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.generate import Sampling, generate
from raysearch.engine.patching.operations import Interchange, Zero
from raysearch.engine.patching.rows import Patch, Row, Source, swap
from raysearch.errors import PositionError
from tests.engine.worlds import model_of

PROMPT, SOURCE = (4, 5, 6, 7), (9, 8, 7, 6)
FAMILIES = ("llama", "gpt2", "gemma2", "bloom", "gpt_neox", "mistral")


def network_of(family: str) -> LanguageModel:
    """One that does not end early."""
    model = model_of(family)
    model.generation_config.eos_token_id = None
    return LanguageModel(model)


def hidden_in(output: object) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.inference_mode()
def by_hand(
    network: LanguageModel, layer: int, token: int, new: int, every: bool
) -> tuple[int, ...]:
    """Greedy, each new token by a full forward pass of its own with the hook on."""
    kept: list[Tensor] = []
    block = network.blocks[layer]
    handle = block.register_forward_hook(
        lambda m, i, o: kept.append(hidden_in(o)[0, token].clone())
    )
    network.plain(SOURCE)
    handle.remove()
    ids = list(PROMPT)

    def write(_m: object, _i: object, output: object) -> object:
        hidden = hidden_in(output).clone()
        hidden[0, token] = kept[0]
        if every:
            hidden[0, len(PROMPT) :] = kept[0]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = block.register_forward_hook(write)
    for _ in range(new):
        ids.append(int(network.plain(tuple(ids)).argmax()))
    handle.remove()
    return tuple(ids[len(PROMPT) :])


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_generation_is_what_full_passes_with_a_hook_give(family: str, every: bool) -> None:
    network = network_of(family)
    taps = Components(network)
    for layer, token in ((0, 1), (1, 3)):
        row = swap(PROMPT, SOURCE, layer, (token,))
        assert generate(network, taps, row, 6, every) == by_hand(network, layer, token, 6, every)


def test_patches_say_something_and_leave_nothing_behind() -> None:
    network = network_of("llama")
    taps, row = Components(network), swap(PROMPT, SOURCE, 1, (3,))
    alone = generate(network, taps, Row(PROMPT), 6)
    assert alone == tuple(
        network.model.generate(torch.tensor([PROMPT]), max_new_tokens=6, do_sample=False)[
            0, 4:
        ].tolist()
    )
    assert (
        len({alone, generate(network, taps, row, 6), generate(network, taps, row, 6, every=True)})
        == 3
    )
    assert generate(network, taps, Row(PROMPT), 6) == alone
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.model.modules())


def test_sampling_depends_on_its_seed_and_not_on_the_global_one() -> None:
    network = network_of("llama")
    taps, row = Components(network), swap(PROMPT, SOURCE, 1, (3,))
    torch.manual_seed(1)
    first, state = generate(network, taps, row, 8, sampling=Sampling(seed=3)), torch.get_rng_state()
    torch.manual_seed(2)
    assert generate(network, taps, row, 8, sampling=Sampling(seed=3)) == first
    assert len({generate(network, taps, row, 8, sampling=Sampling(seed=s)) for s in range(5)}) > 1
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert generate(network, taps, row, 4, sampling=Sampling(top_k=1)) == generate(
        network, taps, row, 4
    )


def test_other_kinds_and_components_go_on_at_every_new_token() -> None:
    network = network_of("llama")
    taps = Components(network)
    alone = generate(network, taps, Row(PROMPT), 5)
    value = Point(0, "value")
    steered = Row(
        PROMPT,
        (
            Patch(
                value, (3,), (Source(Row(SOURCE), value, (3,), range(8)),), Interchange(), range(8)
            ),
        ),
    )
    silenced = Row(PROMPT, (Patch(Point(1, "mlp_output"), (3,), (), Zero()),))
    for row in (steered, silenced):
        assert len({alone, generate(network, taps, row, 5, every=True)}) == 2


def test_a_patch_beyond_the_prompt_is_refused() -> None:
    network = network_of("llama")
    with pytest.raises(PositionError, match="4 tokens, and no token 4"):
        generate(network, Components(network), swap(PROMPT, (1, 2, 3, 4, 5), 0, (4,)), 3)


def test_an_early_end_is_an_end() -> None:
    network = network_of("llama")
    taps, row = Components(network), swap(PROMPT, SOURCE, 1, (3,))
    full = generate(network, taps, row, 6)
    network.model.generation_config.eos_token_id = full[2]
    assert generate(network, taps, row, 6) == full[: full.index(full[2]) + 1]
