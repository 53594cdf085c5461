"""Rows from files: a table in CSV, a folder of pictures, arrays of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from secretflow import _validate
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.audit.rows import Column, Rows

if TYPE_CHECKING:
    import pandas

MOST_ROWS = 40_000
"""Rows that are read at most: attacked ones, 10,000 candidates and 20,000 public ones are among them."""

_MOST_CATEGORIES = 100
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def read_csv(path: str | Path, label: str, drop: Sequence[str] = (), scale: str = "standard") -> Rows:
    """A table, encoded as is usual: numbers scaled, an input of 0 or 1 for each category.

    Args:
        path: of a CSV file with a line of names.
        label: name of the column to predict, of at most 100 different values.
        drop: names of columns that the net does not get.
        scale: of numbers: "standard" (mean 0, deviation 1), "minmax" (0 to 1) or "none".

    Returns:
        At most 40,000 rows, drawn at random with a fixed seed if there are more. A number that is missing is
        the mean of its column, a missing text a category of its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such table.
    """
    import pandas

    _validate.one_of("scale", scale, ("standard", "minmax", "none"))
    try:
        table = pandas.read_csv(path)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ArgumentError(f"path must be a CSV file, got {str(path)!r}: {error}") from None
    for name in (label, *drop):
        _validate.one_of("drop" if name in drop else "label", name, table.columns)
    table = table.drop(columns=list(drop)).dropna(subset=[label])
    if len(table) > MOST_ROWS:
        table = table.sample(MOST_ROWS, random_state=0)
    classes = sorted(table[label].unique())
    few = 2 <= len(classes) <= _MOST_CATEGORIES
    what = f"a column of 2 to {_MOST_CATEGORIES} classes; a number that is predicted is no class"
    _validate.check(few, "label", f"{label!r} with {len(classes)} values", what)
    y = table[label].map({value: number for number, value in enumerate(classes)})
    parts: list[np.ndarray] = []
    columns: list[Column] = []
    for name in table.columns:
        if name != label:
            start = sum(part.shape[1] for part in parts)
            part, column = _column(str(name), table[name], start, scale)
            parts.append(part)
            columns.append(column)
    _validate.check(bool(parts), "path", list(table.columns), "a table with columns beside the label")
    x = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    return Rows(x, torch.tensor(y.to_numpy()), "table", tuple(map(str, classes)), tuple(columns))


def _column(name: str, values: pandas.Series, start: int, scale: str) -> tuple[np.ndarray, Column]:
    """A column as the net gets it, (rows, inputs), and what it means."""
    if values.dtype.kind in "iufb":
        numbers = values.astype(float).to_numpy()
        known = numbers[np.isfinite(numbers)]
        _validate.check(len(known) > 0, "path", f"{name!r} without a number", "a table of filled columns")
        numbers = np.where(np.isfinite(numbers), numbers, known.mean())
        offset, width = 0.0, 1.0
        if scale == "standard":
            offset, width = float(numbers.mean()), float(numbers.std()) or 1.0
        elif scale == "minmax":
            offset, width = float(numbers.min()), float(np.ptp(numbers)) or 1.0
        encoded = ((numbers - offset) / width)[:, None]
        low, high = float(encoded.min()), float(encoded.max())
        return encoded, Column(name, start, (), low, high if high > low else low + 1, offset, width)
    texts = values.fillna("").astype(str)
    categories = sorted(texts.unique())
    what = f"a table whose texts are categories, {_MOST_CATEGORIES} at most; leave others out with drop"
    few = len(categories) <= _MOST_CATEGORIES
    _validate.check(few, "path", f"{name!r} with {len(categories)} different texts", what)
    encoded = (texts.to_numpy()[:, None] == np.array(categories)[None]).astype(float)
    return encoded, Column(name, start, tuple(categories))


def read_images(folder: str | Path, size: int | None = None, grey: bool = False) -> Rows:
    """Pictures, each in a folder that bears the name of its class: ``folder/<class>/<file>``.

    Args:
        folder: with at least two classes.
        size: height and width to which pictures are brought; None leaves them, and all must have one size.
        grey: one channel instead of three.

    Returns:
        At most 40,000 pictures, drawn at random with a fixed seed if there are more, pixels in [0, 1].

    Raises:
        FileNotFoundError: there is no such folder.
        ImportError: Pillow is not installed.
        ValueError: it is no such folder, or the pictures are not of one size.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'secretflow-prune[audit]'") from error
    _validate.integer("size", size, 4, optional=True)
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"folder must be a folder of pictures, got {str(folder)!r}")
    files = sorted(path for path in root.glob("*/*") if path.suffix.lower() in _PICTURES)
    labels = sorted({path.parent.name for path in files})
    what = "a folder with a folder of pictures for each of at least two classes"
    _validate.check(len(labels) >= 2, "folder", f"{str(folder)!r} with the classes {labels}", what)
    if len(files) > MOST_ROWS:
        chosen = np.random.default_rng(0).permutation(len(files))[:MOST_ROWS]
        files = [files[number] for number in sorted(chosen)]
    pictures: list[np.ndarray] = []
    for path in files:
        try:
            with Image.open(path) as opened:
                picture = opened.convert("L" if grey else "RGB")
                if size is not None:
                    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
                pictures.append(np.asarray(picture))
        except (UnidentifiedImageError, OSError) as error:
            raise ArgumentError(f"folder must hold pictures, got {str(path)!r}: {error}") from None
    shapes = {picture.shape[:2] for picture in pictures}
    what = "a folder of pictures of one size; give size to bring them to one"
    _validate.check(len(shapes) == 1, "folder", f"sizes {sorted(shapes)[:3]}", what)
    pixels = torch.from_numpy(np.stack(pictures)).float() / 255
    x = pixels[:, None] if grey else pixels.permute(0, 3, 1, 2).contiguous()
    y = torch.tensor([labels.index(path.parent.name) for path in files])
    return Rows(x, y, "images", tuple(labels))


def read_arrays(path: str | Path) -> Rows:
    """Arrays as the net gets them, of an ``.npz`` file with ``x`` and ``y``.

    Args:
        path: of the file. ``x`` of four dimensions are images with pixels in [0, 1], of integers with two
            dimensions numbers of tokens, of others with two dimensions a table. ``y`` are numbers of classes.
            ``words`` (texts of tokens) and ``padding`` (the number that fills up) may stand beside them.

    Returns:
        At most 40,000 rows, the first ones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except ValueError as error:
        raise ArgumentError(
            f"path must be an .npz file of plain arrays, got {str(path)!r}: {error}"
        ) from None
    missing = {"x", "y"} - arrays.keys()
    _validate.check(not missing, "path", sorted(arrays), "an .npz file with the arrays x and y")
    x, y = arrays["x"][:MOST_ROWS], arrays["y"][:MOST_ROWS].reshape(-1).astype(np.int64)
    tokens = x.ndim == 2 and x.dtype.kind in "iu"
    labels = tuple(str(number) for number in range(max(2, int(y.max()) + 1)))
    return Rows(
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(y),
        "images" if x.ndim == 4 else "tokens" if tokens else "table",
        labels,
        padding=int(arrays["padding"]) if tokens and "padding" in arrays else None,
        words=tuple(map(str, arrays["words"])) if tokens and "words" in arrays else (),
    )
