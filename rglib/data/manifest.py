"""What a data set consists of on this machine: its images, where they lie, and their checksums."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rglib.files import replacing


@dataclass(frozen=True)
class ImageFile:
    """One image of a data set; `sha256` is over the file's bytes.

    `path` is from the project's folder where it lies in there, so that the project can be moved.
    """

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """A file of a folder that is none of its images, and why.

    `file` is its name, with what cannot be printed of it escaped; `sha256` is None where it cannot
    be read.
    """

    file: str
    sha256: str | None
    why: str


@dataclass(frozen=True)
class Manifest:
    """What a data set consists of on this machine.

    `origin` is "mirror", "download", "embedded" or "folder". `stand_in_for` is the title of the
    data set that this one replaces because it was out of reach, else None. `left_out` are files of
    a folder that cannot be used. `listed` is the parameter of the workflow that it was made with,
    see `rglib.data.listing`.
    """

    dataset: str
    title: str
    origin: str
    images: tuple[ImageFile, ...]
    stand_in_for: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    listed: str = ""

    def digest(self) -> str:
        """Return a hash of the data set and its images, whatever their paths and origin."""
        content = [self.dataset, [[image.name, image.sha256] for image in self.images]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read a manifest, whether its images are there or not."""
        return cls.of(json.loads(path.read_text()))

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Manifest":
        """From what `write` wrote."""
        fields = dict(content)
        images = tuple(
            ImageFile(image["name"], Path(image["path"]), image["sha256"])
            for image in fields.pop("images")
        )
        left_out = tuple(LeftOut(**file) for file in fields.pop("left_out", ()))
        return cls(images=images, left_out=left_out, **fields)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest. Raises FileNotFoundError where images that it names are gone."""
        manifest = cls.load(path)
        gone = [str(image.path) for image in manifest.images if not image.path.is_file()]
        if gone:
            raise FileNotFoundError(
                f"{len(gone)} of the {len(manifest.images)} images of {manifest.title} are gone, "
                f"the first is {gone[0]}: bring them back, or have them in a mirror, and run the "
                "same command again; --forcerun test_set dataset downloads them anew"
            )
        return manifest
