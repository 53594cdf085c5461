"""Makes the data of the examples anew: ``python -m examples.make_data``.

The five hospitals share out, unevenly, scikit-learn's copy of the Wisconsin Diagnostic Breast Cancer data
(Wolberg, Street, Mangasarian 1995, UCI Machine Learning Repository, CC BY 4.0): the mean of ten measures of
cell nuclei, and whether the tumour is malignant. ``mnist.npz`` holds the first images of MNIST (LeCun,
Cortes, Burges 1998, CC BY-SA 3.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from experiments.data import load_images

HERE = Path(__file__).resolve().parent
HOSPITALS = {"north": 200, "east": 140, "south": 100, "west": 80, "island": 49}
MEASURES = 10
IMAGES = {"train": 1500, "test": 500}


def hospitals(folder: Path) -> None:
    """Writes a CSV file for each hospital, with the label in the last column."""
    found = load_breast_cancer(as_frame=True)
    table = found.frame.iloc[:, :MEASURES].rename(columns=lambda name: name.replace(" ", "_"))
    table = (table - table.mean()) / table.std()  # as hospitals that agree on units and ranges would
    table["malignant"] = 1 - found.target
    table = table.sample(frac=1, random_state=0).round(4)
    first = 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in HOSPITALS.items():
        table.iloc[first : first + rows].to_csv(folder / f"{name}.csv", index=False)
        first += rows


def mnist(file: Path) -> None:
    """Writes the first images for training and for testing, uint8 of (rows, 28, 28), and their digits."""
    found = load_images()
    arrays = {
        f"{kind}_{part}": getattr(found, f"{kind}_{part}")[:rows]
        for part, rows in IMAGES.items()
        for kind in "xy"
    }
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    hospitals(HERE / "hospitals")
    mnist(HERE / "mnist.npz")
