"""What travels to a GPU without a network: code, images, networks, in a folder of limited size.

In the folder of the project, ``python -m rglib.gpu.parcel pack FOLDER --configfile FILE`` packs it,
for `rglib.gpu.quarter` to run there. ``python -m rglib.gpu.parcel unpack RETURNED STATES`` takes
what came back into a folder of trainings, which the next parcel takes along with ``--states
STATES``.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rglib.data.datasets import DOWNLOADS, mirror_folders, resolve, slug, without_leaks
from rglib.data.decoding import image_size
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import replacing
from rglib.gpu.quarter import ASSIGNMENT, IMAGES, RECORDS, STATES, TESTED, Assignment, needed_there
from rglib.gpu.travel import MIB, States, TravelError, receive
from rglib.plan.ablations import overlaid, without_nulls
from rglib.plan.check import ConfigurationError, check
from rglib.plan.plan import SMALLEST_IMAGE
from rglib.plan.roles import ROLE
from rglib.plan.stages import Stages
from rglib.plan.variants import expanded
from rglib.records.code_hash import code_hash
from rglib.restoration.weights_folder import SETTINGS_FILE, Models, write_settings
from rglib.training.stage import StageSettings

Config = Mapping[str, Any]

# What the code of a parcel may import there, beside the standard library.
PRESENT = frozenset(
    "torch numpy pandas safetensors tensorboard tqdm filelock PIL tifffile skimage tabulate".split()
)
NOT_NEEDED = frozenset({"imagecodecs"})  # for images of 16 bits, of which training has none
RUN_THERE = ("rglib.gpu.quarter", "benchmarks.__main__", "benchmarks.updates")
VALIDATION = {"images": 16, "crop": 96, "denoising_crop": 192}
DONE_ONCE = ("parts.json", "agree.json", "benchmarks.csv", "benchmarks.md", "benchmarks.json")
CODE = "rglib.training.stage"  # the entry point whose hash cards have
SITE = Path("site")  # of unpacked wheels, for PYTHONPATH


class ParcelError(ValueError):
    """A parcel cannot be packed; the message names the file, package or key, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack; 2 with a line on what is wrong."""
    options = parser().parse_args(arguments)
    try:
        said = options.do(options)
    except (ParcelError, TravelError, ConfigurationError, OSError) as error:
        print(f"rglib.gpu.parcel: {error}", file=sys.stderr)
        return 2
    print(said)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m rglib.gpu.parcel", description=__doc__)
    commands = made.add_subparsers(required=True)
    packing = commands.add_parser("pack", help="make a parcel")
    packing.add_argument("folder", type=Path, help="to make; must not be there")
    packing.add_argument("--configfile", type=Path, nargs="+", required=True)
    packing.add_argument("--states", type=Path, help="trainings that came back, to go on from")
    packing.add_argument("--wheels", type=Path, help="folder of wheels of what is missing there")
    packing.add_argument("--mib", type=float, default=64, help="the most that may travel")
    packing.set_defaults(do=_pack)
    unpacking = commands.add_parser("unpack", help="take what came back")
    unpacking.add_argument("returned", type=Path)
    unpacking.add_argument("states", type=Path)
    unpacking.set_defaults(do=_unpack)
    return made


def _pack(options: argparse.Namespace) -> str:
    config = configuration(options.configfile)
    parcel = pack(
        options.folder,
        config,
        states=options.states,
        wheels=options.wheels,
        limit=int(options.mib * MIB),
    )
    return (
        f"{options.folder}: {parcel.size / MIB:.1f} MiB, {parcel.images} of "
        f"{parcel.images_in_all} training images"
    )


def _unpack(options: argparse.Namespace) -> str:
    states = States(options.states)
    stages = receive(options.returned, states, options.states / RECORDS.name)
    overlay = as_given(states)
    return f"{options.states}: {', '.join(stages) or 'no weights'}; {overlay} gives them to a run"


def configuration(overlays: Sequence[Path]) -> dict[str, Any]:
    """config.yaml of the working folder with overlays, checked.

    Raises:
        ConfigurationError: it has mistakes.
    """
    config = yaml.safe_load(Path("config.yaml").read_text())
    for path in overlays:
        config = without_nulls(overlaid(config, yaml.safe_load(path.read_text())))
    schema = Path("workflow/schemas/config.schema.yaml")
    check(config, yaml.safe_load(schema.read_text()))
    return dict(config)


@dataclass(frozen=True)
class Parcel:
    """What was packed: its size in bytes, and training images of those there are."""

    size: int
    images: int
    images_in_all: int


def pack(
    folder: Path,
    config: Config,
    *,
    states: Path | None = None,
    wheels: Path | None = None,
    limit: int = 64 * MIB,
) -> Parcel:
    """Make a parcel of a configuration's stages, whole or not at all.

    Code, the network whose restorations are compared and trainings come first; then training
    images, as files as they are, those with most pixels in a byte before others, as many as fit.

    Args:
        folder: where to make it, which is not there yet.
        config: checked.
        states: a folder of trainings that came back.
        wheels: a folder of wheels.
        limit: bytes.

    Raises:
        ParcelError: the folder is there; the code needs a package that is neither there nor among
            the wheels; no training image fits.
    """
    if folder.exists():
        raise ParcelError(f"{folder} is there already: delete it, or name another folder")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    try:
        parcel = _packed(partial, config, states=states, wheels=wheels, limit=limit)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parcel


def _packed(
    folder: Path, config: Config, *, states: Path | None, wheels: Path | None, limit: int
) -> Parcel:
    site = _unpacked(wheels, folder / SITE) if wheels else frozenset()
    _check_imports(site)
    _copy_code(folder)
    _copy_networks(folder)
    assignment = assignment_of(config)
    if states:
        _copy_states(States(states), assignment, folder)
    (folder / STATES.folder).mkdir(exist_ok=True)
    write_settings(config, folder / STATES.folder / "settings.json")
    assignment.write(folder / ASSIGNMENT)
    _copy_images(_spread(_manifests(config, "validation"), VALIDATION["images"]), folder)
    train = _manifests(config, "train")
    taken = _that_fit(train, limit - _bytes(folder))
    _copy_images(taken, folder, split="train")
    return Parcel(_bytes(folder), _count(taken), _count(train))


def assignment_of(config: Config) -> Assignment:
    """What is to be trained, as the workflow would."""
    planned = Stages(expanded(config))
    used = [method["stage"] for method in config["methods"].values()]
    stages, starts = [], {}
    for name in planned.with_predecessors(used):
        given = planned.parameters(name)
        starts[name] = planned.starts(name)
        del given["starts"], given["learned"]
        given["code"] = {CODE: code_hash(CODE)}
        log, device = planned.entry(name)["log"], config["device"]
        stages.append(StageSettings(name=given.pop("stage"), log=log, device=device, **given))
    used_roles: dict[str, list[str]] = {}
    for method in config["methods"].values():
        used_roles.setdefault(method["stage"], []).append(ROLE[method["algorithm"]])
    crops = [settings.entry["budget"]["crop"] for settings in stages]
    return Assignment(
        run=config["run"],
        stages=tuple(stages),
        starts=starts,
        used=used_roles,
        config={key: config[key] for key in ("evaluation", "problems", "training_problems")},
        min_size=max(SMALLEST_IMAGE, *crops),
        validation=VALIDATION,
    )


def as_given(states: States) -> Path:
    """Write an overlay that gives a folder's trainings to a run, and return where it is."""
    weights = {
        stage: {role: {"file": str(states.weights(stage, role))} for role in card["roles"]}
        for path in sorted(states.folder.glob("*.card.json"))
        if (card := states.card(stage := path.name.removesuffix(".card.json")))["roles"]
    }
    path = states.folder / "weights.yaml"
    with replacing(path) as partial:
        partial.write_text(
            yaml.safe_dump({"init": "weights", "device": "auto", "weights": weights})
        )
    return path


# --- code -----------------------------------------------------------------------------------------


def _check_imports(site: frozenset[str]) -> None:
    for name, path in _reached(RUN_THERE).items():
        tops = {imported.split(".")[0] for imported in _imported(path)}
        foreign = tops - sys.stdlib_module_names - {"rglib", "benchmarks"}
        for package in sorted(foreign - PRESENT - NOT_NEEDED - site):
            raise ParcelError(
                f"{name} imports {package}, which is not there: name a folder with its wheel in "
                "--wheels"
            )


def _reached(modules: Iterable[str]) -> dict[str, Path]:
    """The files of modules and of all that they import from the project, by name."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name not in found and path is not None:
            found[name] = path
            waiting += [name.rpartition(".")[0], *_imported(path)]
    return found


def _source(module: str) -> Path | None:
    stem = Path(*module.split("."))
    candidates = (stem / "__init__.py", Path(f"{stem}.py"))
    return next((path for path in candidates if path.is_file()), None)


def _imported(path: Path) -> Iterator[str]:
    """The dotted names that a module may import: ``from a import b`` may be a module a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _unpacked(wheels: Path, site: Path) -> frozenset[str]:
    """Unpack wheels, and return the packages that are then there."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return frozenset(path.stem for path in site.glob("*") if not path.name.endswith(".dist-info"))


def _copy_code(folder: Path) -> None:
    for package in ("rglib", "benchmarks"):
        for path in Path(package).rglob("*"):
            if path.suffix in (".py", ".csv"):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _copy_networks(folder: Path) -> None:
    """The shipped networks that devices are compared with."""
    target = folder / "weights"
    target.mkdir(parents=True)
    models = Models.open()
    weights = [models.weights(method) for method in TESTED.values()]
    cards = [
        models.folder / f"{models.method(method)['stage']}.card.json" for method in TESTED.values()
    ]
    for path in (*weights, *cards, models.folder / SETTINGS_FILE):
        shutil.copyfile(path, target / path.name)


def _copy_states(states: States, assignment: Assignment, folder: Path) -> None:
    """The cards and histories of all trainings that have begun, and the weights that are needed."""
    target = folder / STATES.folder
    target.mkdir()
    begun = [settings.name for settings in assignment.stages if states.card(settings.name)]
    weights = [states.weights(s, r) for s in begun for r in needed_there(assignment, states, s)]
    told = [path for stage in begun for path in states.folder.glob(f"{stage}.*")]
    for path in (*weights, *told):
        shutil.copyfile(path, target / path.name)
    records = [states.folder / RECORDS.name / name for name in DONE_ONCE]
    (folder / RECORDS).mkdir()
    for path in filter(Path.exists, records):
        shutil.copyfile(path, folder / RECORDS / path.name)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- images ---------------------------------------------------------------------------------------


def _manifests(config: Config, split: str) -> list[Manifest]:
    mirrors = mirror_folders(config["mirrors"])
    found = [resolve(id, mirrors=mirrors, data_dir=DOWNLOADS) for id in config["data"][split]]
    return [without_leaks(m) if config["data"]["exclude_leaks"] else m for m in found]


def _spread(manifests: Sequence[Manifest], count: int) -> list[Manifest]:
    """So many images of each data set at most, evenly over it."""
    spread = []
    for manifest in manifests:
        n = min(count, len(manifest.images))
        chosen = [manifest.images[i * len(manifest.images) // n] for i in range(n)]
        spread.append(replace(manifest, images=tuple(chosen)))
    return spread


def _that_fit(manifests: Sequence[Manifest], room: int) -> list[Manifest]:
    """The images that fit, those with most pixels in a byte first."""
    room -= 2**16 + 256 * _count(manifests)  # for their manifests
    ordered = sorted(_with_sizes(manifests), key=lambda found: found[1] / found[2])
    kept: set[Path] = set()
    for image, size, _ in ordered:
        if size <= room:
            kept.add(image.path)
            room -= size
    if not kept:
        raise ParcelError("no training image fits beside the rest: allow more with --mib")
    chosen = [replace(m, images=tuple(i for i in m.images if i.path in kept)) for m in manifests]
    return [manifest for manifest in chosen if manifest.images]


def _with_sizes(manifests: Iterable[Manifest]) -> Iterator[tuple[ImageFile, int, int]]:
    """Each image with its bytes and its pixels."""
    for manifest in manifests:
        for image in manifest.images:
            width, height = image_size(image.path)
            yield image, image.path.stat().st_size, width * height


def _count(manifests: Iterable[Manifest]) -> int:
    return sum(len(manifest.images) for manifest in manifests)


def _copy_images(manifests: Iterable[Manifest], folder: Path, *, split: str = "validation") -> None:
    """Copy files, and write manifests of them with paths from the folder of the parcel."""
    for manifest in manifests:
        name = slug(manifest.dataset)
        there = IMAGES / split / name
        (folder / there).mkdir(parents=True, exist_ok=True)
        images = []
        for image in manifest.images:
            path = there / f"{image.name}{image.path.suffix}"
            shutil.copyfile(image.path, folder / path)
            images.append(replace(image, path=path))
        packed = replace(manifest, images=tuple(images))
        packed.write(folder / IMAGES / split / f"{name}.json")


if __name__ == "__main__":
    sys.exit(main())
