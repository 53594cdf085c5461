"""Rows of files and how two of them are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from secretflow.ml.nn.fl.audit import Rows, read_arrays, read_csv, read_images
from secretflow.ml.nn.fl.audit.rows import Column

TABLE = """age,town,income,died
20,Bern,1000,no
40,Basel,,yes
60,,3000,no
80,Bern,5000,yes
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text(TABLE)
    return path


def test_a_table_of_numbers_and_texts_is_encoded_and_shown_again(table: Path) -> None:
    rows = read_csv(table, "died")
    assert rows.kind == "table" and rows.labels == ("no", "yes") and rows.y.tolist() == [0, 1, 0, 1]
    assert [(column.name, column.width) for column in rows.columns] == [
        ("age", 1),
        ("town", 3),
        ("income", 1),
    ]
    assert rows.columns[1].categories == ("", "Basel", "Bern")
    torch.testing.assert_close(
        rows.x[:, 0], torch.tensor([-1.3416, -0.4472, 0.4472, 1.3416]), atol=1e-4, rtol=0
    )
    assert [column.shown(rows.x[3]) for column in rows.columns] == ["80", "Bern", "5000"]
    assert rows.columns[2].shown(rows.x[1]) == "3000"  # the mean of the known ones


def test_the_error_of_a_row_is_the_mean_over_columns(table: Path) -> None:
    rows = read_csv(table, "died")
    found = rows.x.clone()
    found[0, 0] += 0.1 * (rows.columns[0].high - rows.columns[0].low)  # a tenth of the range
    found[1, 1:4] = torch.tensor([0.2, 0.1, 0.7])  # another town
    errors = rows.errors(found, rows.x)
    torch.testing.assert_close(errors, torch.tensor([0.01 / 3, 1 / 3, 0, 0]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "dead"}, "label must be one of"),
        ({"label": "died", "drop": ["city"]}, "drop must be one of"),
        ({"label": "died", "scale": "log"}, "scale must be one of"),
    ],
)
def test_a_table_that_is_not_as_named_is_refused(table: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_csv(table, **arguments)


def test_a_column_of_free_text_and_a_label_of_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("note,value\n" + "".join(f"text {k},{k}\n" for k in range(150)))
    with pytest.raises(ValueError, match="label must be a column of 2 to 100 classes"):
        read_csv(path, "value")
    path.write_text("note,value\n" + "".join(f"text {k},{k % 2}\n" for k in range(150)))
    with pytest.raises(ValueError, match=r"leave others out with drop, got .'note' with 150 different texts"):
        read_csv(path, "value")


def test_pictures_are_read_by_folder_and_brought_to_a_size(tmp_path: Path) -> None:
    from PIL import Image

    for number, label in enumerate(["cat", "cat", "dog", "dog"]):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.new("RGB", (6 + number, 6), (255, 0, 51)).save(tmp_path / label / f"{number}.png")
    with pytest.raises(ValueError, match="pictures of one size; give size"):
        read_images(tmp_path)
    rows = read_images(tmp_path, size=8)
    assert rows.x.shape == (4, 3, 8, 8) and rows.labels == ("cat", "dog") and rows.y.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(rows.x[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.2]))
    assert read_images(tmp_path, size=8, grey=True).x.shape == (4, 1, 8, 8)
    (tmp_path / "dog" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"folder must hold pictures, got .*broken\.png"):
        read_images(tmp_path, size=8)


def test_arrays_of_integers_are_tokens_which_are_compared_as_sets(tmp_path: Path) -> None:
    x = np.array([[3, 1, 1, 0], [2, 3, 0, 0], [1, 2, 3, 0], [5, 1, 0, 0]])
    np.savez(tmp_path / "rows.npz", x=x, y=np.array([0, 1, 1, 0]), padding=0, words=np.array(list("_abcde")))
    rows = read_arrays(tmp_path / "rows.npz")
    assert rows.kind == "tokens" and rows.padding == 0 and rows.words[5] == "e"
    found = torch.tensor([[1, 3, 3, 3], [2, 2, 2, 2], [3, 2, 1, 1], [5, 1, 1, 4]]).float()
    assert rows.errors(found, rows.x).tolist() == [0, 1, 0, 1]
    assert (rows.errors(found, rows.x) < rows.success_error).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"x": torch.rand(4, 3).double()}, "x must be of float32"),
        ({"x": torch.tensor([[float("nan")] * 3] * 4)}, "x must be finite numbers"),
        ({"y": torch.tensor([0, 1, 2, 0])}, "y must be from 0 to 1"),
        ({"kind": "pictures"}, "kind must be one of"),
        ({"kind": "images"}, "x must be of 4 dimensions for images"),
        ({"labels": ("only",)}, "labels must be at least two classes"),
    ],
)
def test_rows_that_do_not_fit_are_refused(parts: dict, message: str) -> None:
    good = {"x": torch.rand(4, 3), "y": torch.tensor([0, 1, 1, 0]), "kind": "table", "labels": ("a", "b")}
    with pytest.raises((ValueError, TypeError), match=message):
        Rows(**{**good, **parts})


@pytest.mark.parametrize(
    ("number", "text"), [(-5.7e-8, "0"), (0.5, "0.5"), (52_341, "52341"), (87.25, "87.25")]
)
def test_a_number_is_shown_as_it_was_written(number: float, text: str) -> None:
    assert Column("income", 0).shown(torch.tensor([number])) == text
