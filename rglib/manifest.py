"""What a data set consists of on this machine: its images, where they lie, and their checksums."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rglib.files import replacing


@dataclass(frozen=True)
class ImageFile:
    """One image of a data set; `sha256` is over the file's bytes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a data set consists of on this machine.

    `origin` is "mirror", "download", "embedded" or "folder". `stand_in_for` is the title of the
    data set that this one replaces because it was out of reach, else None.
    """

    dataset: str
    title: str
    origin: str
    images: tuple[ImageFile, ...]
    stand_in_for: str | None = None

    def digest(self) -> str:
        """Return a hash of the data set and its images, whatever their paths and origin."""
        content = [self.dataset, [[image.name, image.sha256] for image in self.images]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest. Raises FileNotFoundError where images that it names are gone."""
        fields = json.loads(path.read_text())
        images = tuple(
            ImageFile(image["name"], Path(image["path"]), image["sha256"])
            for image in fields.pop("images")
        )
        gone = [str(image.path) for image in images if not image.path.is_file()]
        if gone:
            raise FileNotFoundError(
                f"{len(gone)} of the {len(images)} images of {fields['title']} are gone, "
                f"the first is {gone[0]}: bring them back, or delete {path} and run again"
            )
        return cls(images=images, **fields)
