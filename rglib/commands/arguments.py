"""The arguments of every command. No PyTorch here, so that help and mistakes show at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from rglib.plan.roles import DEVICES, SOLVERS

DEFAULT_METHOD = "mtdeq"  # of `rglib restore`: what serves best by `python -m benchmarks.methods`

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``command`` is the name of the command's module."""
    whole = argparse.ArgumentParser(
        prog="rglib", description="Restore images with regularizing gradients; check results."
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in (
        _add_restore,
        _add_degrade,
        _add_models,
        _add_verify,
        _add_conform,
        _add_kit,
        _add_claims,
        _add_crate,
    ):
        add(commands)
    return whole


def _path(text: str) -> Path:
    """A file or a folder.

    Raises:
        argparse.ArgumentTypeError: it is empty, as an unset variable is, and would be this folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("'' names no file and no folder")
    return Path(text)


def _count(text: str) -> int:
    """A number of threads.

    Raises:
        argparse.ArgumentTypeError: it is no whole number above 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; must be a whole number above 0")
    return int(text)


def _add_restore(commands: Commands) -> None:
    """Add ``restore``."""
    parser = commands.add_parser(
        "restore",
        help="restore photographs with a trained network",
        description="Restore an image, or all images of a folder: blurred ones, ones of low "
        "resolution (the result is larger by the factor) and ones with missing pixels. Alpha "
        "channel, colour profile and 16 bits are kept, EXIF orientation is applied, grey stays "
        "grey; what cannot be kept or understood is refused. .npy takes and keeps any numbers. "
        "Exit status: 0 all is written, 2 something cannot be done as asked.",
    )
    parser.add_argument("input", type=_path, help="image, or folder of images")
    parser.add_argument(
        "-o",
        "--output",
        type=_path,
        required=True,
        help="output image, or output folder, where each image becomes a .png",
    )
    _add_degradation(parser)
    parser.add_argument(
        "--estimate-noise",
        action="store_true",
        help="estimate the noise level of each image and print it, for images whose noise is not "
        "known",
    )
    parser.add_argument(
        "--mask",
        type=_path,
        metavar="FILE",
        help="for completion: an image of the same size, white (or 1) where pixels are known, "
        "black (or 0, or transparent) where they are missing; .npy, .npz or .mat; or a folder of "
        "masks with the images' names",
    )
    parser.add_argument(
        "--border",
        choices=("photograph", "circular"),
        default="photograph",
        help="photograph: the scene goes on beyond the image; circular: the right border is "
        "beside the left one, as in the tables and from `rglib degrade` (default: %(default)s)",
    )
    parser.add_argument(
        "--truth", type=_path, help="image or folder to compare with: prints PSNR and SSIM"
    )
    parser.add_argument(
        "--certificate",
        action="store_true",
        help="write OUTPUT-certificate.json too: how the restoration ended, how near it is to a "
        "zero of D + s^2 G, and what Theorem 1 says of that",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing outputs")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--method", default=DEFAULT_METHOD, help="`rglib models` lists them (default: %(default)s)"
    )
    _add_folder(network)
    network.add_argument("--device", choices=DEVICES, default="auto", help="(default: %(default)s)")
    network.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "auto"),
        default="float32",
        help="inside the network (default: %(default)s)",
    )
    network.add_argument(
        "--threads",
        type=_count,
        metavar="N",
        help="of the CPU (default: the fastest number, measured in a second; or OMP_NUM_THREADS)",
    )
    settings = parser.add_argument_group(
        "settings",
        "By default the settings of the problem in --problem, or else of the most similar problem "
        "of the tables. If --noise differs from that problem's, s is the noise level.",
    )
    settings.add_argument("--iterations", type=int, metavar="N")
    settings.add_argument(
        "--solver",
        choices=SOLVERS,
        help="of gradient descent; adam needs --iterations 1500, semi_implicit 20 to 64",
    )
    settings.add_argument("--lr", type=float, help="Adam's step on the image (gradient descent)")
    settings.add_argument("--s", type=float, help="the network's weight is s^2 (gradient descent)")
    settings.add_argument(
        "--tile-above",
        type=int,
        metavar="PIXELS",
        help="apply the network to parts of larger images, to save memory (gradient descent)",
    )


def _add_degrade(commands: Commands) -> None:
    """Add ``degrade``."""
    parser = commands.add_parser(
        "degrade",
        help="make blurred, small or incomplete images of sharp ones, as in the tables",
        description="Make the observation of an image, or of all images of a folder, exactly as "
        "the tables do: cropped to the problem's multiples, with the operator's circular borders. "
        "An ending of .npy keeps it exactly; others clip its noise and round it to 8 bits, or to "
        "16 where the image has them. A grey image stays grey.",
    )
    parser.add_argument("input", type=_path, help="image, or folder of images")
    parser.add_argument(
        "-o", "--output", type=_path, required=True, help="observation, or folder for them"
    )
    _add_degradation(parser)
    parser.add_argument(
        "--mask",
        type=_path,
        metavar="FILE",
        help="for completion: where to write which pixels are known, white; or folder",
    )
    parser.add_argument(
        "--truth", type=_path, metavar="FILE", help="where to write the cropped image; or folder"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of mask and noise (default: %(default)s, the tables')"
    )
    parser.add_argument(
        "--ending",
        choices=(".npy", ".png"),
        default=".npy",
        help="file type of the observations, if the input is a folder (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing outputs")


def _add_models(commands: Commands) -> None:
    """Add ``models``."""
    parser = commands.add_parser(
        "models",
        help="list the trained networks and the problems that there are settings for",
        description="List the methods of a folder of networks, from their model cards, and the "
        "settings they restore with.",
    )
    _add_folder(parser)


def _add_verify(commands: Commands) -> None:
    """Add ``verify``."""
    parser = commands.add_parser(
        "verify",
        help="say which results are stale or were touched by hand",
        description="Recompute the hashes that the records of results name: of the results, the "
        "code, the configuration, and of networks and images where work/ is at hand. Exit status: "
        "0 all is ok, 1 something is not, 2 there is nothing to compare.",
    )
    parser.add_argument("folder", type=_path, help="results/, a copy of it, or an RO-Crate of it")
    parser.add_argument(
        "--configfile",
        type=_path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what snakemake was given; without it config.yaml and config/*.yaml are tried",
    )
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def _add_conform(commands: Commands) -> None:
    """Add ``conform``."""
    parser = commands.add_parser(
        "conform",
        help="compare another implementation with the conformance kit",
        description="Call an adapter's methods with the inputs of the kit and compare what they "
        "return: where another implementation first departs from the protocol, and by how much. "
        "Exit status: 0 all that is offered agrees, 1 something departs, 2 nothing can be "
        "compared.",
    )
    parser.add_argument(
        "adapter",
        metavar="MODULE:CLASS",
        help="a class of a file in the working folder, made without arguments: "
        "examples.conform_scipy:Adapter, for example",
    )
    parser.add_argument(
        "--case", nargs="+", metavar="ID", help="problems to compare (default: all thirteen)"
    )
    parser.add_argument(
        "--kit", type=_path, metavar="FILE", help="(default: the one that comes with rglib)"
    )
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def _add_kit(commands: Commands) -> None:
    """Add ``kit``."""
    parser = commands.add_parser(
        "kit",
        help="compute the conformance kit anew",
        description="Compute every tensor of the conformance kit with rglib and write the file. "
        "Exit status: 0 it is written, 2 it cannot be.",
    )
    parser.add_argument("-o", "--output", type=_path, required=True, help="a .safetensors file")
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing outputs")


def _add_claims(commands: Commands) -> None:
    """Add ``claims``."""
    parser = commands.add_parser(
        "claims",
        help="check claims, the paper's or others, on a table of results",
        description="Check claims of a file on a CSV with a row for each method and problem, or "
        "several that are averaged: which hold, and by how much. Exit status: 0 none that can be "
        "evaluated fails, 1 one does, 2 nothing can be evaluated.",
    )
    parser.add_argument("table", type=_path, help="results.csv, or any such table")
    parser.add_argument(
        "--claims", type=_path, metavar="FILE", help="a YAML file (default: the paper's claims)"
    )
    parser.add_argument(
        "--curves",
        type=_path,
        metavar="FILE",
        help="a CSV that has a column `iteration` too, such as convergence.csv: for claims of how "
        "fast something rises",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=THEIRS",
        help="what the table calls the columns that the claims name: method=algorithm",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="OURS=THEIRS",
        help="whose rows are taken for a method that the claims name: rerg=rerg_scaled",
    )
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def _add_crate(commands: Commands) -> None:
    """Add ``crate``."""
    parser = commands.add_parser(
        "crate",
        help="write the results of a run with their records as an RO-Crate",
        description="Write a Workflow Run RO-Crate: the results that have records, the records, "
        "the workflow, and what made them in terms that archives read. Needs rocrate. Exit "
        "status: 0 it is written, 2 it cannot be.",
    )
    parser.add_argument("folder", type=_path, help="results/, or a copy of it")
    parser.add_argument("-o", "--output", type=_path, required=True, help="the folder to make")
    parser.add_argument(
        "--snakefile",
        type=_path,
        default=Path("Snakefile"),
        metavar="FILE",
        help="the workflow that made them (default: %(default)s)",
    )
    parser.add_argument(
        "--license",
        default="https://spdx.org/licenses/MIT",
        metavar="URL",
        help="of the results (default: %(default)s)",
    )


def _add_degradation(parser: argparse.ArgumentParser) -> None:
    """Add ``--problem``, ``--kernel`` and what goes with it, and ``--noise``."""
    parser.add_argument(
        "--problem", metavar="ID", help="one of the twelve of the tables; `rglib models` lists them"
    )
    parser.add_argument(
        "--kernel",
        type=_path,
        metavar="FILE",
        help="blur kernel with odd sides: .npy, .npz, .mat, .csv, .txt, .tsv or a grey image; "
        "divided by its sum, and convolved with the image, as by MATLAB's conv2 and "
        "scipy.ndimage.convolve",
    )
    parser.add_argument(
        "--kernel-name",
        metavar="NAME",
        help="which kernel to use, if a .npy, .npz or .mat holds several, such as f or "
        "kernels[3]; without it an error lists them",
    )
    parser.add_argument(
        "--correlated",
        action="store_true",
        help="the kernel was correlated with the image, as by MATLAB's imfilter and PyTorch's "
        "conv2d, and is turned by 180 degrees here",
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="STD",
        help="standard deviation of the noise on [0, 1], such as 0.01 (2.55 of 255); default: "
        "that of the problem",
    )


def _add_folder(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add ``--models``."""
    parser.add_argument(
        "--models",
        type=_path,
        metavar="FOLDER",
        help="of networks, such as work/<run>/models (default: those that come with rglib)",
    )
