"""Push and pull of saved interventions, through huggingface_hub, with a stand-in of the hub on
loopback."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from raysearch import SavedIntervention, load_intervention, push_intervention, save_intervention
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.errors import HubError, StoreError
from tests.interventions.hub_stand_in import READER, TOKEN, Hub, Repository, serve

NAME = "ann/capitals-country"
SAVED = SavedIntervention(
    Intervention((Unit(Site(12, "residual", "country")),)),
    {"R": torch.randn(8, 2, dtype=torch.bfloat16)},
    variable="country",
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of its own, a cache of its own, nobody logged in."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with serve() as hub:
        yield hub


# huggingface_hub 2.4 uploads to LFS with an argument that httpx2 2.16 has deprecated.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("lfs", [False, True])
def test_what_is_pulled_is_what_was_pushed(hub: Hub, lfs: bool) -> None:
    hub.lfs = {"intervention.safetensors"} if lfs else set()
    commit = push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    assert commit == hub.repositories[NAME].head
    for revision in (None, "main", commit):
        read = load_intervention(NAME, revision=revision, endpoint=hub.endpoint)
        assert read.intervention.id == SAVED.intervention.id
        assert read.variable == "country"
        assert read.tensors["R"].dtype is torch.bfloat16
        assert torch.equal(read.tensors["R"], SAVED.tensors["R"])
    assert any("lfs/objects/batch" in request for request in hub.seen) == lfs


def test_a_push_is_one_commit_of_three_files_whose_readme_names_the_repository(hub: Hub) -> None:
    push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    repository = hub.repositories[NAME]
    assert len(repository.commits) == 2  # the hub's own first one, and ours
    files = repository.commits[repository.head]
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "intervention.json",
        "intervention.safetensors",
    }
    assert f'raysearch.load_intervention("{NAME}")'.encode() in files["README.md"]
    assert SAVED.intervention.id in repository.messages[-1]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("lfs", [False, True])
def test_pushing_the_same_again_makes_no_commit(hub: Hub, lfs: bool) -> None:
    hub.lfs = {"intervention.safetensors"} if lfs else set()
    first = push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    assert push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint) == first
    assert len(hub.repositories[NAME].commits) == 2


def test_an_older_revision_is_still_there_after_another_push(hub: Hub) -> None:
    first = push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    other = SavedIntervention(SAVED.intervention, {"R": torch.ones(1)})
    push_intervention(other, NAME, token=TOKEN, endpoint=hub.endpoint)
    assert torch.equal(load_intervention(NAME, endpoint=hub.endpoint).tensors["R"], torch.ones(1))
    read = load_intervention(NAME, revision=first, endpoint=hub.endpoint)
    assert torch.equal(read.tensors["R"], SAVED.tensors["R"])


def test_a_token_that_may_write_but_not_make_repositories_is_enough_for_one_that_is_there(
    hub: Hub,
) -> None:
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit({}, "initial commit")
    hub.may_create = False
    push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    assert load_intervention(NAME, endpoint=hub.endpoint).intervention == SAVED.intervention


def test_a_folder_is_pushed_with_its_own_readme_and_nothing_else_that_lies_in_it(
    hub: Hub, tmp_path: Path
) -> None:
    save_intervention(SAVED, tmp_path / "it")
    (tmp_path / "it" / "README.md").write_text("---\nlicense: mit\n---\nMy own words.\n")
    (tmp_path / "it" / "notes.txt").write_text("private")
    push_intervention(tmp_path / "it", NAME, token=TOKEN, endpoint=hub.endpoint)
    files = hub.repositories[NAME].commits[hub.repositories[NAME].head]
    assert b"My own words." in files["README.md"]
    assert "notes.txt" not in files


def test_a_folder_that_is_not_whole_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    save_intervention(SAVED, tmp_path / "it")
    (tmp_path / "it" / "intervention.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match="SHA-256"):
        push_intervention(tmp_path / "it", NAME, token=TOKEN, endpoint=hub.endpoint)
    assert not hub.seen


def test_pulling_and_pushing_print_nothing(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    load_intervention(NAME, endpoint=hub.endpoint)
    assert capfd.readouterr() == ("", "")


def test_a_private_repository_is_read_with_a_token_only(hub: Hub) -> None:
    push_intervention(SAVED, NAME, private=True, token=TOKEN, endpoint=hub.endpoint)
    assert hub.repositories[NAME].private
    assert (
        load_intervention(NAME, token=READER, endpoint=hub.endpoint).intervention
        == SAVED.intervention
    )


def test_what_was_pulled_once_is_read_from_the_cache_when_the_hub_is_away(hub: Hub) -> None:
    push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    load_intervention(NAME, endpoint=hub.endpoint)
    hub.down = 503
    assert load_intervention(NAME, endpoint=hub.endpoint).intervention == SAVED.intervention


def test_a_local_folder_goes_before_a_repository_of_that_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_intervention(SAVED, NAME)
    assert load_intervention(NAME, endpoint=hub.endpoint).intervention == SAVED.intervention
    assert not hub.seen


def _line(error: pytest.ExceptionInfo[HubError]) -> str:
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert TOKEN not in text
    assert READER not in text
    assert error.value.exit_code == 4
    return text


def test_a_pull_that_the_hub_refuses_is_one_line(hub: Hub) -> None:
    endpoint = hub.endpoint
    with pytest.raises(
        HubError, match=f"{NAME}: there is no such repository on {endpoint}, or it is private"
    ) as error:
        load_intervention(NAME, endpoint=endpoint)
    _line(error)
    push_intervention(SAVED, NAME, private=True, token=TOKEN, endpoint=endpoint)
    with pytest.raises(HubError, match="or it is private") as error:
        load_intervention(NAME, endpoint=endpoint)
    _line(error)
    with pytest.raises(HubError, match="at v9: there is no such revision") as error:
        load_intervention(NAME, revision="v9", token=TOKEN, endpoint=endpoint)
    _line(error)
    hub.repositories[NAME].private, hub.repositories[NAME].gated = False, True
    with pytest.raises(HubError, match="only to those whom its owner let in") as error:
        load_intervention(NAME, token=READER, endpoint=endpoint)
    _line(error)
    hub.down = 500
    with pytest.raises(
        HubError, match=r"answered with status 500 .*the hub is being mended"
    ) as error:
        load_intervention(NAME, endpoint=endpoint)
    _line(error)


def test_a_repository_that_holds_no_intervention_says_so(hub: Hub) -> None:
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit({"config.json": b"{}"}, "a model")
    with pytest.raises(StoreError, match=rf"{NAME} \(hub\): this is no saved intervention"):
        load_intervention(NAME, endpoint=hub.endpoint)


def test_a_push_that_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        HubError, match=r"does not allow you to write it .*rights to create"
    ) as error:
        push_intervention(SAVED, NAME, token=READER, endpoint=hub.endpoint)
    _line(error)
    with pytest.raises(
        HubError, match=r"does not allow you to write it|no such repository"
    ) as error:
        push_intervention(SAVED, NAME, endpoint=hub.endpoint)
    _line(error)
    push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    with pytest.raises(HubError, match=r"does not allow you to write it .*not write it") as error:
        push_intervention(SAVED, NAME, token=READER, endpoint=hub.endpoint)
    _line(error)
    save_intervention(SAVED, tmp_path / "it")
    (tmp_path / "it" / "README.md").write_text("no metadata")
    with pytest.raises(HubError, match="metadata is missing") as error:
        push_intervention(tmp_path / "it", NAME, token=TOKEN, endpoint=hub.endpoint)
    _line(error)
    for name in ("capitals", "ann/b/c", "ann/..", "a--b/x..y"):
        with pytest.raises(HubError) as error:
            push_intervention(SAVED, name, token=TOKEN, endpoint=hub.endpoint)
        _line(error)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_upload_to_lfs_that_fails_is_one_line_and_makes_no_commit(hub: Hub) -> None:
    hub.lfs, hub.full = {"intervention.safetensors"}, True
    with pytest.raises(HubError, match="answered with status 413") as error:
        push_intervention(SAVED, NAME, token=TOKEN, endpoint=hub.endpoint)
    _line(error)
    assert len(hub.repositories[NAME].commits) == 1


def test_a_hub_out_of_reach_is_one_line(hub: Hub) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(HubError, match=f"{away} cannot be reached .*HF_ENDPOINT") as error:
            load_intervention(NAME, endpoint=away)
        _line(error)
        with pytest.raises(HubError, match=f"{away} cannot be reached .*HF_ENDPOINT") as error:
            push_intervention(SAVED, NAME, token=TOKEN, endpoint=away)
        _line(error)


def test_an_address_that_is_no_hub_is_one_line(hub: Hub, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    with pytest.raises(HubError) as error:
        load_intervention(NAME, endpoint="nonsense")
    _line(error)
