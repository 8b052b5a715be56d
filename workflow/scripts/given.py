"""Take the weights of one stage from files or addresses instead of training it."""

from hashlib import sha256
from pathlib import Path

from rglib.data.download import Archive, download
from rglib.training.stage import import_stage


def local(source):
    """The file itself, or its download."""
    if source.get("file"):
        return Path(source["file"])
    url = source["url"]
    archive = Archive(url=url, file=url.rsplit("/", 1)[-1], sha256=source.get("sha256"))
    of_this_url = sha256(url.encode()).hexdigest()[:8]  # others may end in the same name
    return download(archive, Path(snakemake.params.downloads, of_this_url))


sources = snakemake.params.sources
import_stage(
    snakemake.params.stage,
    {role: local(source) for role, source in sources.items()},
    checksums={role: source.get("sha256") for role, source in sources.items()},
    weights={role: Path(snakemake.output[role]) for role in sources},
    network=snakemake.params.network,
    card=Path(snakemake.output.card),
)
