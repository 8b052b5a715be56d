import os
import re

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from rglib.data.arrays import read_array, read_text, shape_of, without_single_axes
from rglib.data.decoding import ImageError

TABLE = np.array([[0.25, 0, 1e-3], [0, 2, 0], [-1, 0, 12.5]])


def cells(*values):
    cell = np.empty((1, len(values)), object)
    cell[0] = values
    return cell


def read(path, **options):
    return read_array(path, choosing="choose one", **options)


# --- text -----------------------------------------------------------------------------------------


def rows(separator, *, decimal=".", end="\n", last=""):
    lines = (separator.join(f"{x:.8g}".replace(".", decimal) for x in row) for row in TABLE)
    return end.join(line + last for line in lines) + end


TEXTS = {
    "commas": rows(","),
    "commas and blanks": rows(", "),
    "blanks": rows(" "),
    "many blanks": rows("   "),
    "tabs": rows("\t"),
    "semicolons": rows(";"),
    "a German Excel": rows(";", decimal=",", end="\r\n"),
    "tabs and decimal commas": rows("\t", decimal=","),
    "an Excel": "\ufeff" + rows(",", end="\r\n"),
    "at the end": rows(",", last=","),
    "blanks at the end": rows(" ", last="  "),
    "indented": "  " + rows(" ").replace("\n", "\n  "),
    "empty lines": "\n\n" + rows(",").replace("\n", "\n\n"),
    "comments": "# a kernel, 3x3\n" + rows(",").replace("\n", " # of mine\n"),
    "an old Mac": rows(",", end="\r"),
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_as_programs_write_them(tmp_path, form, encoding):
    (tmp_path / "k.csv").write_bytes(TEXTS[form].encode(encoding))
    found = read_text(tmp_path / "k.csv")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, TABLE)


def test_one_row_and_one_column_and_one_number(tmp_path):
    for text, expected in {"1,2,3": [[1, 2, 3]], "1\n2\n": [[1], [2]], "7": [[7]]}.items():
        (tmp_path / "k.txt").write_text(text)
        assert read_text(tmp_path / "k.txt").tolist() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "k.csv: there are none"),
        (b"\n# nothing\n", "k.csv: there are none"),
        (b"a,b\n1,2\n", "k.csv, line 1: could not convert string to float: 'a'"),
        (b"1,2\n3\n", "k.csv: line 1 has 2 of them, line 2 has 1"),
        (b"1,,3\n", "k.csv, line 1: could not convert"),
        (b"0,5 0,25\n", "k.csv, line 1: could not convert"),
        (b"1,nan\n", "k.csv, line 1: they are not all finite"),
        (b"1,1e999\n", "k.csv, line 1: they are not all finite"),
        (b"\x89PNG\xff\xfe", "k.csv: it is no text"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, message):
    (tmp_path / "k.csv").write_bytes(content)
    with pytest.raises(ImageError, match=re.escape(message)) as caught:
        read_text(tmp_path / "k.csv")
    assert "\n" not in str(caught.value)


# --- arrays ---------------------------------------------------------------------------------------

TYPES = ["?", "i1", "u1", "<i2", ">u2", "<i4", ">i8", "<u8", "<f2", ">f4", "<f8", ">f8"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".NPY"])
def test_any_type_of_numbers_and_order_of_bytes(tmp_path, ending, dtype, order):
    expected = np.asarray([[0, 1, 1], [1, 0, 1]], dtype=dtype, order=order)
    with (tmp_path / f"a{ending}").open("wb") as file:
        if ending == ".npz":
            np.savez_compressed(file, k=expected)
        else:
            np.save(file, expected)
    found = read(tmp_path / f"a{ending}")
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["4", "5"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_variable_of_matlab(tmp_path, form, compressed):
    savemat(tmp_path / "a.mat", {"f": TABLE, "sigma": 0.1}, format=form, do_compression=compressed)
    np.testing.assert_array_equal(read(tmp_path / "a.mat"), TABLE)


def test_one_of_several_by_its_name(tmp_path):
    savemat(
        tmp_path / "a.mat",
        {
            "kernels": cells(TABLE, TABLE.T, TABLE[:1]),
            "blur": {"kernel": 3 * TABLE, "name": "motion"},
            "f": 2 * TABLE,
        },
    )
    np.savez(tmp_path / "a.npz", f=2 * TABLE, g=TABLE)
    expected = {
        "kernels[0]": TABLE,
        "kernels[1]": TABLE.T,
        "kernels[2]": TABLE[:1],
        "blur.kernel": 3 * TABLE,
        "f": 2 * TABLE,
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(read(tmp_path / "a.mat", name=name), array)
    np.testing.assert_array_equal(read(tmp_path / "a.npz", name="g"), TABLE)
    with pytest.raises(ImageError) as caught:
        read(tmp_path / "a.mat")
    listed = str(caught.value)
    assert all(f"{name} ({shape_of(array)})" in listed for name, array in expected.items())
    assert listed.endswith("; choose one")
    with pytest.raises(ImageError, match=r"there is no h in it, but f \(3x3\), g \(3x3\)"):
        read(tmp_path / "a.npz", name="h")


def test_cells_of_numbers_are_an_array(tmp_path):
    numbers = np.empty(TABLE.shape, object)
    numbers[:] = TABLE
    savemat(tmp_path / "a.mat", {"k": numbers})
    np.testing.assert_array_equal(read(tmp_path / "a.mat"), TABLE)


class Malice:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (self.victim, "w")


def test_nothing_in_a_file_is_executed(tmp_path):
    victim = tmp_path / "victim"
    content = np.array([Malice(str(victim)), None])
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    np.savez(tmp_path / "a.npz", k=content)
    content.dump(tmp_path / "b.npy")
    for name, why in {
        "a.npy": "it holds Python objects",
        "a.npz": "it holds Python objects",
        "b.npy": "it is damaged, or none",
    }.items():
        with pytest.raises(ImageError, match=f"{name}: {why}$"):
            read(tmp_path / name)
    assert not victim.exists()


def written(tmp_path, name, array):
    path = tmp_path / name
    np.save(path, array)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), complex), "it holds complex128, and no integers or floats"),
        (np.array([["a", "b"]]), "it holds <U1, and no integers"),
        (np.zeros(3, [("x", "f4"), ("y", "i2")]), ".*, and no integers or floats"),
        (np.zeros((0, 3)), "it is empty or has values that are not finite"),
        (np.array([1, np.nan]), "it is empty or has values that are not finite"),
        (np.array([1, np.inf], np.float16), "it is empty or has values that are not finite"),
    ],
)
def test_arrays_without_numbers(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match=f"a.npy: {message}"):
        read(tmp_path / "a.npy")


def test_files_without_arrays(tmp_path):
    whole = written(tmp_path, "whole.npy", np.ones((40, 40)))
    savemat(tmp_path / "whole.mat", {"f": np.ones((40, 40))})
    matlab = (tmp_path / "whole.mat").read_bytes()
    savemat(tmp_path / "words.mat", {"name": "motion"})
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "circle.npy").symlink_to(tmp_path / "circle.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    contents = {
        "cut.npy": whole[:900],
        "text.npy": b"hello",
        "empty.npy": b"",
        "cut.mat": matlab[: len(matlab) // 2],
        "text.mat": b"hello",
        "empty.mat": b"",
        "new.mat": b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM" + bytes(400),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    reasons = {
        **dict.fromkeys(contents, "it is damaged, or none"),
        "new.mat": "it is of MATLAB's version 7.3; save it with -v7",
        "words.mat": "it holds <U6, and no integers or floats",
        "cut.mat": "it is damaged",
        "missing.npy": "No such file or directory",
        "folder.npy": "it is no file",
        "pipe.npy": "it is no file",
        "circle.npy": "Too many levels of symbolic links",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=f"{name}: {reason}") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 4), (3, 4)),
        ((3, 4, 1), (3, 4)),
        ((1, 1, 3, 4), (3, 4)),
        ((1, 3, 4, 1), (3, 4)),
        ((1, 4), (1, 4)),
        ((1, 1, 1, 4), (1, 4)),
        ((2, 3, 4), (2, 3, 4)),
        ((5,), (5,)),
    ],
)
def test_axes_of_length_one(shape, expected):
    assert without_single_axes(np.zeros(shape)).shape == expected


def test_a_sparse_matrix_of_matlab_is_read_like_any_other(tmp_path):
    expected = np.outer([1, 2, 1], [0, 3, 1])
    savemat(tmp_path / "k.mat", {"k": csc_matrix(expected)})
    np.testing.assert_array_equal(read(tmp_path / "k.mat"), expected)


def test_several_arrays_are_chosen_from_by_the_names_that_the_message_lists(tmp_path):
    np.savez(tmp_path / "k.npz", f=np.eye(3), g=np.ones((5, 5)))
    with pytest.raises(ImageError, match="choose one") as caught:
        read(tmp_path / "k.npz")
    names = re.findall(r"(\w+) \(\dx\d\)", str(caught.value))
    assert [read(tmp_path / "k.npz", name=name).shape for name in names] == [(3, 3), (5, 5)]
