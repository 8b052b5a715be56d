"""What a mask says: which pixels are known, in the forms that people store masks in."""

from __future__ import annotations

import numpy as np

WHITES = (1, 255, 65535)  # of true and false, of 8 and of 16 bits
NEAR = 0.25  # of white: as far as compression may move black and white
COLOURLESS = 0.1  # of white: as far as compression may colour them
BLACK_AND_WHITE = "make it black, what is missing, and white, what is known"


class MaskError(ValueError):
    """An image says nothing definite about what is known; the message is the reason."""


def known_pixels(
    colours: np.ndarray, alpha: np.ndarray | None = None, *, lossy: bool = False
) -> np.ndarray:
    """Which pixels are known, bool (H, W).

    A mask has two values: 0 is missing and the other one is known, whether that is true, 1, 255 or
    a palette's colour. Where there is transparency it decides: what is transparent is missing.

    Args:
        colours: (H, W, 1) or (H, W, 3), of any numeric type.
        alpha: (H, W), or None.
        lossy: of a compression that moves values: what is near black or white is taken for it.

    Raises:
        MaskError: nothing is known, there are more values, or alpha and colours contradict.
    """
    if colours.dtype == bool:
        colours = colours.astype(np.uint8)
    if alpha is not None and (alpha != _white(alpha)).any():
        return _of_alpha(colours, alpha, lossy=lossy)
    return _of_colours(colours, lossy=lossy)


def _of_alpha(colours: np.ndarray, alpha: np.ndarray, *, lossy: bool) -> np.ndarray:
    """By the alpha channel, unless what is opaque is drawn in black, or in one colour."""
    opaque = _of_levels(alpha, lossy=lossy)
    visible = colours[opaque][:, None]
    try:
        agrees = bool(_of_colours(visible, lossy=lossy).all())
    except MaskError:  # a picture with holes, whose colours say nothing
        agrees = len(np.unique(visible.reshape(len(visible), -1), axis=0)) > 2
    if not agrees:
        raise MaskError(
            "its colours and its alpha channel say different things; keep one of them, and "
            + BLACK_AND_WHITE
        )
    return opaque


def _of_colours(colours: np.ndarray, *, lossy: bool) -> np.ndarray:
    levels = colours[..., 0] if colours.shape[2] == 1 else colours.mean(axis=2)
    away = np.abs(colours - levels[..., None]).max()
    if away <= (COLOURLESS * _white(colours) if lossy else 0):
        return _of_levels(colours[..., 0], lossy=lossy)
    distinct = np.unique(colours.reshape(-1, colours.shape[2]), axis=0)
    if len(distinct) != 2 or distinct[0].any():  # they come in order, black first
        raise MaskError("its colours do not say what is known; " + BLACK_AND_WHITE)
    return np.asarray(colours.any(axis=2))


def _of_levels(levels: np.ndarray, *, lossy: bool) -> np.ndarray:
    values = np.unique(levels)
    white = _white(levels)
    if not values.any():
        raise MaskError("no pixel is known: white is known, black not")
    if len(values) == 1 and values[0] in WHITES:
        return np.ones(levels.shape, dtype=bool)
    if len(values) == 2 and values[0] == 0:
        return levels > 0
    near_ends = (levels <= NEAR * white) | (levels >= (1 - NEAR) * white)
    in_range = 0 <= values[0] and values[-1] <= white
    if in_range and near_ends.all() and (lossy or len(values) == 2):
        return levels >= white / 2
    between = int((~near_ends).sum()) if in_range else 0
    greys = f", {between} of its pixels neither near black nor near white" if between else ""
    raise MaskError(
        f"it has {len(values)} values from {values[0]} to {values[-1]}{greys}; {BLACK_AND_WHITE}"
    )


def _white(levels: np.ndarray) -> float:
    greatest = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
    return greatest.get(levels.dtype, 1.0)
