"""Makes the data of the examples anew: ``python examples/make_data.py``.

The five hospitals share out, unevenly, scikit-learn's copy of the Wisconsin Diagnostic Breast Cancer data
(Wolberg, Street, Mangasarian 1995, UCI Machine Learning Repository, CC BY 4.0): the mean of ten measures of
cell nuclei, and whether the tumour is malignant.
"""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_breast_cancer

HERE = Path(__file__).resolve().parent
HOSPITALS = {"north": 200, "east": 140, "south": 100, "west": 80, "island": 49}
MEASURES = 10


def hospitals() -> None:
    """Writes a CSV file for each hospital, with the label in the last column."""
    found = load_breast_cancer(as_frame=True)
    table = found.frame.iloc[:, :MEASURES].rename(columns=lambda name: name.replace(" ", "_"))
    table = (table - table.mean()) / table.std()  # as hospitals that agree on units and ranges would
    table["malignant"] = 1 - found.target
    table = table.sample(frac=1, random_state=0).round(4)
    first = 0
    for name, rows in HOSPITALS.items():
        table.iloc[first : first + rows].to_csv(HERE / "hospitals" / f"{name}.csv", index=False)
        first += rows


if __name__ == "__main__":
    hospitals()
