"""Checkpoints that survive a kill at any moment, and tell a damaged file from a whole one."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rglib.files import replacing

DIGEST_LENGTH = 64  # hex sha256 of the payload, at the head of the file


@dataclass(frozen=True)
class Checkpoints:
    """The newest checkpoint of a run and the one before it, in a folder of their own.

    Every file begins with the sha256 of the rest. A state belongs to a ``fingerprint`` (what is
    being trained, on what, from what); one of another fingerprint is never resumed.
    """

    folder: Path
    fingerprint: str

    @property
    def newest(self) -> Path:
        """Path of the newest checkpoint."""
        return self.folder / "newest.ckpt"

    @property
    def previous(self) -> Path:
        """Path of the one before."""
        return self.folder / "previous.ckpt"

    def save(self, state: dict[str, Any]) -> None:
        """Write beside, flush to the disk, rename; the last one becomes the previous one.

        Raises:
            OSError: it could not be written; it names the file and says why, and the last ones are
                as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save({"fingerprint": self.fingerprint, "state": state}, buffer)
        payload = buffer.getvalue()
        with replacing(self.newest) as partial:
            with partial.open("wb") as file:
                file.write(hashlib.sha256(payload).hexdigest().encode())
                file.write(payload)
                file.flush()  # a disk may say only now that it is full: before the renames
                os.fsync(file.fileno())
            if self.newest.exists():
                os.replace(self.newest, self.previous)

    def load(self) -> dict[str, Any] | None:
        """The newest whole state of this fingerprint, or None; a damaged file is set aside."""
        for path in (self.newest, self.previous):
            if path.exists() and (content := _whole(path)) is not None:
                if content["fingerprint"] == self.fingerprint:
                    state: dict[str, Any] = content["state"]
                    return state
                warnings.warn(f"{path}: of another configuration, not resumed", stacklevel=2)
        return None


def _whole(path: Path) -> dict[str, Any] | None:
    """The content, or None after setting a damaged file aside; no code in it is run."""
    content = path.read_bytes()
    digest, payload = content[:DIGEST_LENGTH], content[DIGEST_LENGTH:]
    if hashlib.sha256(payload).hexdigest().encode() == digest:
        try:
            loaded: dict[str, Any] = torch.load(
                io.BytesIO(payload), map_location="cpu", weights_only=True
            )
            return loaded
        except pickle.UnpicklingError:  # code, or types that are none of a checkpoint's
            pass
    aside = path.with_suffix(".damaged")
    os.replace(path, aside)
    warnings.warn(f"{path}: damaged checkpoint set aside as {aside.name}", stacklevel=3)
    return None
