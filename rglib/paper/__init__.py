"""What the paper says: its names, its constants, its results and its claims.

Each fact stands here once, and nothing else does. Its settings at test time are in config.yaml with
the source of each, and the operators of its twelve problems in `rglib.core.problems`.
"""

from pathlib import Path

TABLES = Path(__file__).with_name("tables.csv")
CLAIMS = Path(__file__).with_name("claims.yaml")

# Names, by ours.
METHODS = {
    "gauss": "Gauss",
    "mtdeq": "MTDEQ",
    "pnpreg": "pnpReG",
    "rg1": "RG1",
    "deqgd": "DEQGD",
    "rerg": "RERG",
}
TASKS = {  # by the beginning of a problem's id
    "completion": "completion",
    "deblur": "deblurring",
    "sr": "super_resolution",
}
TABLE_TITLES = {1: "Completion and deblurring", 2: "Super-resolution"}
FIGURE_1_PROBLEMS = ("sr3_gaussian_n0.01", "completion90", "deblur_s2.0")
FIGURE_1_IMAGE = "butterfly"
FIGURE_2_PROBLEM = "completion90"

# Section 5.1: the networks, and the training at fixed points.
WIDTHS, BLOCKS = (64, 128, 256, 512), 4  # of the DRUNet: channels and residual blocks per scale
ETA_FB, ETA_GD = 0.49, 0.05  # step sizes of f, eq. (12), and of g, eq. (14)
FIXED_POINT_ITERATIONS = 500  # of f and of g, at most
TOLERANCE = 1e-7  # mean square distance of consecutive iterates
NOISE_MAX = 50 / 255  # std on [0, 1] of the noise trained on, from 0 up
BUDGETS = {  # what pnpReG, and what each training at fixed points, saw
    "pnpreg": {"steps": 800_000, "batch": 16, "crop": 128},
    **{
        stage: {"steps": 78_750, "batch": 16, "crop": 128}
        for stage in ("mtdeq", "rg1", "deqgd", "rerg")
    },
}
TRAINING_PROBLEMS = {  # with the keys of config.yaml, without those that the paper leaves open
    "sigma_min_255": 0,
    "sigma_max_255": 255 * NOISE_MAX,
    "noise": "uniform",
    "sigma_b_max": 4.0,
    "factors": [1, 2, 4],
    "drop_max": 0.99,
}
IMAGES = 8394  # trained on
TRAINING_DATA = "DIV2K, BSD500, Flickr2K and WED"

# Section 5.2: restoration.
TEST_SET = "Set5"
SOLVER = "adam"
ITERATIONS = 1500  # of gradient descent
START = "released"  # where it begins, as in the released scripts
