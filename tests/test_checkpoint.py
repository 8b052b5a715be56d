import errno
import os

import pytest
import torch

from rglib.training.checkpoint import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "this training")


def state(step):
    return {
        "step": step,
        "weights": {"w": torch.full((3, 2), float(step))},
        "history": [{"a": 0.1}],
    }


def step_of(checkpoints):
    loaded = checkpoints.load()
    return None if loaded is None else loaded["step"]


def test_without_a_checkpoint_there_is_nothing_to_resume(checkpoints):
    assert checkpoints.load() is None


def test_what_was_saved_is_loaded(checkpoints):
    checkpoints.save(state(1))
    loaded = checkpoints.load()
    assert loaded["history"] == [{"a": 0.1}]
    assert torch.equal(loaded["weights"]["w"], torch.ones(3, 2))


def test_the_newest_of_many_is_loaded_and_two_are_kept(checkpoints):
    for step in range(5):
        checkpoints.save(state(step))
    assert step_of(checkpoints) == 4
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "newest.ckpt",
        "previous.ckpt",
    ]


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "one bit": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        }[how]
    )


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit"])
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_used(checkpoints, how):
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    damage(checkpoints.newest, how)
    with pytest.warns(UserWarning, match="damaged checkpoint set aside"):
        assert step_of(checkpoints) == 1
    assert checkpoints.newest.with_suffix(".damaged").exists()
    assert not checkpoints.newest.exists()
    checkpoints.save(state(3))
    assert step_of(checkpoints) == 3


def test_with_both_damaged_training_starts_anew(checkpoints):
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    damage(checkpoints.newest, "truncated")
    damage(checkpoints.previous, "one bit")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.load() is None


def test_a_checkpoint_of_another_training_is_never_resumed(checkpoints):
    checkpoints.save(state(1))
    other = Checkpoints(checkpoints.folder, "another training")
    with pytest.warns(UserWarning, match="not resumed"):
        assert other.load() is None
    assert step_of(checkpoints) == 1  # and is left where it is


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_before_or_between_the_renames_leaves_a_state_to_resume(
    checkpoints, renames, monkeypatch
):
    checkpoints.save(state(1))
    done = []

    def replace(source, target):
        if len(done) == renames:
            raise Killed
        done.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replace)
        checkpoints.save(state(2))
    assert step_of(checkpoints) == 1
    checkpoints.save(state(3))
    assert step_of(checkpoints) == 3


def test_a_kill_while_writing_leaves_the_last_state(checkpoints, monkeypatch):
    checkpoints.save(state(1))

    def killed(_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "fsync", killed)
        checkpoints.save(state(2))
    assert step_of(checkpoints) == 1


def test_a_disk_that_is_full_leaves_the_last_states_and_names_the_file(checkpoints, full_disk):
    for step in (1, 2):
        checkpoints.save(state(step))
    before = {path: path.read_bytes() for path in checkpoints.folder.iterdir()}
    large = state(3) | {"weights": {"w": torch.zeros(100_000)}}
    with full_disk(100_000), pytest.raises(OSError, match=r"newest\.ckpt") as caught:
        checkpoints.save(large)
    assert caught.value.errno == errno.EFBIG
    assert {path: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    checkpoints.save(large)
    assert step_of(checkpoints) == 3


def test_the_newest_is_not_a_matter_of_the_clock(checkpoints):
    for step in (1, 2):
        checkpoints.save(state(step))
    os.utime(checkpoints.newest, (0, 0))
    assert step_of(checkpoints) == 2


class Malice:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_code_in_a_checkpoint_is_not_run(checkpoints, tmp_path):
    checkpoints.save(state(1))
    checkpoints.save(state(2) | {"history": Malice(tmp_path / "victim")})  # its checksum is right
    with pytest.warns(UserWarning, match=r"newest\.ckpt: damaged checkpoint set aside"):
        assert step_of(checkpoints) == 1
    assert not (tmp_path / "victim").exists()
