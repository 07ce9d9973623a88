"""Paths in a table: what is taken off them, which file they name, what they may not name, and near misses."""

import json
import logging
import os
import unicodedata
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.config import CONFIGS, DataArguments
from hf_cxr.data import load_nih, load_streamed, load_table
from hf_cxr.data.images.decoded import grey_of
from hf_cxr.data.images.grey import ImageError
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.sources import Source, load_source
from hf_cxr.data.sources.prepared import load_prepared

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def png(value: int) -> bytes:
    content = BytesIO()
    Image.new("L", (4, 4), value).save(content, "PNG")
    return content.getvalue()


def pictures(root: Path, names) -> None:
    """A file each, whose pixels are its number."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))


def describe(root: Path, paths, columns=None, **keys) -> Path:
    """The YAML of a table with these three paths, one a split; None leaves a key out."""
    root.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(
        {"Path": paths, "part": PARTS, "patient": ["a", "b", "c"], "Mass": [1, 0, 1], **(columns or {})}
    )
    frame.to_csv(root / "rows.csv", index=False)
    values = {"files": "rows.csv", "split_column": "part", "image_column": "Path", "patient_column": "patient"}
    values |= {"findings": ["Mass"], **keys}
    (root / "t.yaml").write_text(json.dumps({k: v for k, v in values.items() if v is not None}), encoding="utf-8")
    return root / "t.yaml"


def values(splits) -> list[int]:
    """The pixel value of each split's first image."""
    return [int(np.asarray(splits[part][0]["image"])[0, 0]) for part in PARTS]


def ids(splits) -> list[str]:
    return [splits[part][0]["image_id"] for part in PARTS]


NAMES = ["img/0.png", "img/1.png", "img/2.png"]
STARTS = {
    "/kaggle/input/cxr/": "/kaggle/input/cxr/",
    "/kaggle/input/cxr/ ": "/kaggle/input/cxr",  # the slash is the user's to leave out
    "../input/cxr/": r"\.\./input/cxr/",
    "../../cxr/": r"(\.\./)+cxr/",
    "C:/Users/me/cxr/": "C:/Users/me/cxr/",
    "C:\\Users\\me\\cxr\\": r"C:\\Users\\me\\cxr\\",
    "C:\\Users\\me\\cxr\\ ": "C:/Users/me/cxr/",  # written with slashes
    "c:\\users\\ME/cxr\\": "(?i)C:/Users/me/cxr",
    "\\\\server\\share\\": "//server/share/",
    "file:///data/cxr/": "file:///data/cxr/",
    "~/cxr/": "~/cxr/",
}


@pytest.mark.parametrize(("start", "strip"), STARTS.items())
def test_what_image_strip_leaves_is_path_and_id(tmp_path, start, strip):
    pictures(tmp_path, NAMES)
    backslashes = "\\" in start
    paths = [start.strip() + (name.replace("/", "\\") if backslashes else name) for name in NAMES]
    splits, _ = load_table(describe(tmp_path, paths, image_strip=strip))
    assert ids(splits) == NAMES  # the same on every machine
    assert values(splits) == [0, 1, 2]
    assert ids(load_table(tmp_path / "t.yaml", images=False)[0]) == NAMES


@pytest.mark.parametrize(
    "rest", ["../secret.png", "x/../../secret.png", "..\\secret.png", "C:/secret.png", "~/secret.png"]
)
def test_what_is_left_after_the_strip_stays_in_the_folder(tmp_path, rest):
    path = describe(tmp_path, [f"/in/{rest}", *NAMES[1:]], image_strip="/in/")
    with pytest.raises(ValueError, match=r"leaves the image folder \(1 row.*secret.*image_strip '/in/' does not take"):
        load_table(path, images=False)


def test_without_image_strip_the_message_gives_it(tmp_path):
    pictures(tmp_path, NAMES)
    path = describe(tmp_path, [f"/kaggle/input/c-1/{name}" for name in NAMES])
    with pytest.raises(ValueError, match=r"leaves the image folder \(3 row.*image_strip: '/kaggle/input/c-1/'"):
        load_table(path, images=False)
    path = describe(tmp_path, [f"release/{name}" for name in NAMES])  # below the folder, and not there
    with pytest.raises(FileNotFoundError, match=r"is missing 3 of 3 images.*image_strip: 'release/'"):
        load_table(path)
    path = describe(tmp_path, [f"https://x.org/{name}" for name in NAMES])
    with pytest.raises(FileNotFoundError, match=r"image_strip: 'https://x\\.org/'"):
        load_table(path)
    assert values(load_table(describe(tmp_path, [f"release/{n}" for n in NAMES], image_strip="release/"))[0]) == [
        0,
        1,
        2,
    ]


def test_an_id_of_its_own_column_is_a_name_and_not_a_path(tmp_path):
    pictures(tmp_path, NAMES)
    names = ["/home/me/.cache/00000001_000.png", "../b", "C:\\c"]
    splits, _ = load_table(describe(tmp_path, NAMES, {"name": names}, image_id="name"))
    assert ids(splits) == names
    assert values(splits) == [0, 1, 2]
    with pytest.raises(ValueError, match="an image id contains a line break"):
        load_table(describe(tmp_path, NAMES, {"name": ["a\nb", "c", "d"]}, image_id="name"))


def test_backslashes_are_slashes_unless_a_file_has_that_very_name(tmp_path):
    written = ["img\\0.png", "img/sub\\1.png", "img\\sub\\2.png"]
    pictures(tmp_path, [name.replace("\\", "/") for name in written])
    splits, _ = load_table(describe(tmp_path, written))
    assert ids(splits) == ["img/0.png", "img/sub/1.png", "img/sub/2.png"]
    assert values(splits) == [0, 1, 2]
    (tmp_path / "img\\0.png").write_bytes(png(77))
    assert values(load_table(tmp_path / "t.yaml")[0]) == [77, 1, 2]


def test_one_file_has_one_spelling(tmp_path):
    with pytest.raises(ValueError, match="an image is in two splits"):
        load_table(describe(tmp_path, ["img/0.png", "./img/0.png", "img//2.png"], merge="any"), images=False)
    columns = {"name": ["x", "y", "z"]}
    with pytest.raises(ValueError, match="an image file has two ids"):
        load_table(describe(tmp_path, ["img/0.png", "img\\0.png", "c"], columns, image_id="name"), images=False)


# --- names of folders with wildcards in them


@pytest.mark.parametrize("folder", ["data[1]", "what?", "all*", "[x]"])
def test_folders_whose_names_look_like_wildcards(tmp_path, folder):
    root = tmp_path / folder
    pictures(root / folder, NAMES)
    assert values(load_table(describe(root, NAMES, image_root=folder))[0]) == [0, 1, 2]
    flat = [Path(name).name for name in NAMES]
    assert values(load_table(describe(root, flat, image_root=folder, image_folders=["im*"]))[0]) == [0, 1, 2]
    assert values(load_table(describe(root, flat, image_folders=[f"{folder}/img"]))[0]) == [0, 1, 2]
    (root / "rows.csv").rename(root / f"{folder}.csv")  # a table of such a name
    splits, _ = load_table(describe_again(root, files=f"{folder}.csv", image_folders=[f"{folder}/img"]))
    assert values(splits) == [0, 1, 2]
    splits, _ = load_table(describe_again(root, files="*.csv", image_folders=[f"{folder}/img"]))
    assert values(splits) == [0, 1, 2]


def describe_again(root: Path, **keys) -> Path:
    path = root / "t.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return path


def test_studies_in_folders_whose_names_look_like_wildcards(tmp_path):
    root = tmp_path / "data[1]"
    pictures(root, [f"s[{n}]/study{n}/view[1].png" for n in range(3)])
    studies = [f"/in/s[{n}]\\study{n}" for n in range(3)]
    keys = {"studies": {"column": "Study", "images": "view*.png"}, "image_strip": "/in/"}
    path = describe(root, ["x"] * 3, **keys)
    frame = pd.read_csv(root / "rows.csv").drop(columns="Path").assign(Study=studies)
    frame.to_csv(root / "rows.csv", index=False)
    splits, _ = load_table(path)
    assert values(splits) == [0, 1, 2]
    assert ids(splits)[1] == "s[1]/study1/view[1].png"
    assert values(load_table(describe_again(root, studies={"column": "Study", "images": "view[1].png"}))[0]) == [
        0,
        1,
        2,
    ]
    frame.assign(Study=["/in/../up", *studies[1:]]).to_csv(root / "rows.csv", index=False)
    with pytest.raises(ValueError, match=r"Study leaves the image folder \(1 row"):
        load_table(path)


def test_parquet_below_such_a_folder(tmp_path):
    root = tmp_path / "data[1]"
    path = shards(root)
    assert values(load_table(path)[0]) == [0, 1, 2]
    assert [len(split) for split in load_streamed(path)[0].values()] == [1, 1, 1]
    for read in (load_table, load_streamed):
        with pytest.raises(ValueError, match=r"data\[1\]/data: .*rename the folder"):
            read(describe_parquet(root, hub="data"))


# --- names that are nearly those of files


def test_the_same_name_in_another_unicode_form_is_read(tmp_path):
    written = ["Größe/é0.png", "Größe/é1.png", "Größe/é2.png"]
    composed, decomposed = ([unicodedata.normalize(form, name) for name in written] for form in ("NFC", "NFD"))
    assert composed != decomposed
    for number, (table, disk) in enumerate([(composed, decomposed), (decomposed, composed)]):
        root = tmp_path / str(number)
        pictures(root, disk)
        splits, _ = load_table(describe(root, table))
        assert (values(splits), ids(splits)) == ([0, 1, 2], composed)  # an id has one spelling
        flat = [Path(name).name for name in table]
        assert values(load_table(describe(root, flat, image_folders=[str(Path(disk[0]).parent)]))[0]) == [0, 1, 2]


NEAR = {
    "suffix": ("img/0.png", "img/0.PNG"),
    "case of the name": ("img/a0.png", "img/A0.png"),
    "case of a folder": ("img/0.png", "IMG/0.png"),
    "no ending in the table": ("img/00000001_000", "img/00000001_000.png"),
    "no ending on disk": ("img/1.2.840.1.dcm", "img/1.2.840.1"),
    "another ending": ("img/0.jpg", "img/0.png"),
    "case and form": ("img/É.png", unicodedata.normalize("NFD", "img/é.PNG")),
}


@pytest.mark.parametrize("folders", [None, ["img", "IMG"]])
@pytest.mark.parametrize(("table", "disk"), NEAR.values(), ids=NEAR)
def test_near_misses_are_named(tmp_path, caplog, table, disk, folders):
    pictures(tmp_path, [disk, *NAMES[1:]])
    path = describe(tmp_path, [table, *NAMES[1:]], image_folders=folders)
    if folders and "IMG" in disk:
        assert values(load_table(path)[0]) == [0, 1, 2]  # it is looked for in both
        return
    with pytest.raises(FileNotFoundError) as refused:
        load_table(path)
    assert "is missing 1 of 3 images" in str(refused.value)
    assert f"1 of them a file differs only in upper and lower case or in the ending (the table has {table}" in str(
        refused.value
    )
    assert f"the folder {disk})" in str(refused.value)
    with (
        pytest.raises(ValueError, match=r"no image of train .*for 1 of them"),
        caplog.at_level(logging.WARNING),
    ):
        load_table(path, missing_images="skip")
    assert "for 1 of them a file differs" in caplog.text


def test_a_missing_ending_can_be_given_in_the_description(tmp_path):
    pictures(tmp_path, NAMES)
    bare = [name.removesuffix(".png") for name in NAMES]
    with pytest.raises(FileNotFoundError, match=r"for 3 of them .*image_path: '\{column\}\.png'"):
        load_table(describe(tmp_path, bare))
    assert values(load_table(describe(tmp_path, bare, image_column=None, image_path="{Path}.png"))[0]) == [0, 1, 2]


def test_what_is_not_near_is_not_named(tmp_path):
    pictures(tmp_path, ["img/10.png", *NAMES[1:]])
    with pytest.raises(FileNotFoundError) as refused:
        load_table(describe(tmp_path, ["img/0.png", *NAMES[1:]]))
    assert "differs" not in str(refused.value)


def test_the_release_names_near_misses_too(tmp_path):
    names = [f"0000000{n}_000.png" for n in range(1, 9)]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    lines = [f"{name},Mass,0,{int(name[:8])},58,M,PA\n" for name in names]
    (tmp_path / "Data_Entry_2017.csv").write_text(header + "".join(lines))
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:6]))
    (tmp_path / "test_list.txt").write_text("\n".join(names[6:]))
    pictures(tmp_path / "images", [*names[:-1], names[-1].replace(".png", ".PNG")])
    with pytest.raises(FileNotFoundError, match=r"is missing 1 of 8 images.*for 1 of them .*00000008_000\.PNG"):
        load_nih(tmp_path)


# --- data that hold their images hold the bytes; a path in a cell is not opened


def shards(root: Path, change=None, image=None) -> Path:
    """A table of three images in one Parquet file, of which ``change`` replaces the second one."""
    (root / "data").mkdir(parents=True)
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in range(3)]
    images[1] = change or images[1]
    columns = {"image": image or images, "part": list(PARTS), "patient": list("abc"), "Mass": [1, 0, 1]}
    pq.write_table(pa.table(columns), root / "data/shard.parquet")
    return describe_parquet(root, files="data/*.parquet")


def describe_parquet(root: Path, **keys) -> Path:
    described = {"split_column": "part", "image_column": "image", "patient_column": "patient", "findings": ["Mass"]}
    (root / "t.yaml").write_text(json.dumps(described | keys))
    return root / "t.yaml"


@pytest.fixture
def secret(tmp_path) -> str:
    path = tmp_path / "elsewhere" / "secret.png"
    pictures(path.parent, [path.name])
    return str(path)


@pytest.mark.parametrize("content", [None, b""], ids=["none", "empty"])
def test_a_row_without_bytes_is_refused_by_every_reader(tmp_path, secret, content, capsys):
    path = shards(tmp_path / "set", {"bytes": content, "path": secret})
    where = r"shard.parquet: 1 of 3 rows have no image bytes in column 'image'"
    for images in (True, False):
        with pytest.raises(
            ValueError, match=rf"{where} \(the first: row 1, path '.*secret.png'\).*not opened.*to_parquet"
        ):
            load_table(path, images=images)
    words = ["--dataset", "table", "--table", str(path)]
    for command in (
        f"train {CONFIGS / 'quickstart.yaml'} --output_dir",
        "prepare --resize_size 256 --out",
        "describe --out",
    ):
        assert main([*command.split(), str(tmp_path / "out"), *words]) == 2
        assert "1 of 3 rows have no image bytes" in capsys.readouterr().err
    if content is None:  # the footer counts these; the others are named when they are reached
        with pytest.raises(ValueError, match=where):
            load_streamed(path)
    else:
        from hf_cxr.data import StreamedImages

        stream = StreamedImages(load_streamed(path)[0]["validation"], 4, 3, batch_size=1)
        with pytest.raises(ImageError, match=r"row 1.*no bytes"):
            next(iter(stream))


def test_the_file_and_row_of_several_files_are_named(tmp_path, secret):
    path = shards(tmp_path, {"bytes": None, "path": secret})
    (tmp_path / "data/shard.parquet").rename(tmp_path / "data/z.parquet")
    shards(tmp_path / "whole")
    os.replace(tmp_path / "whole/data/shard.parquet", tmp_path / "data/a.parquet")
    with pytest.raises(ValueError, match=r"z.parquet: 1 of 6 rows .*row 1, path"):
        load_table(path)


def test_a_column_of_paths_is_not_a_column_of_images(tmp_path, secret):
    """`datasets` casts texts to images that are read from there."""
    shards(tmp_path, image=[secret] * 3)
    with pytest.raises(ValueError, match=r"data \(train\): 3 of 3 rows have no image bytes.*secret"):
        load_table(describe_parquet(tmp_path, hub="data"))
    with pytest.raises(ValueError, match="leaves the image folder"):
        load_table(describe_parquet(tmp_path, files="data/shard.parquet"))


@pytest.mark.parametrize("read", [load_table, load_streamed])
def test_the_files_of_a_folder_are_in_it(tmp_path, read):
    """A dataset card may name its data files, with ".." in their paths."""
    shards(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    os.link(tmp_path / "elsewhere/data/shard.parquet", tmp_path / "data/shard.parquet")
    path = describe_parquet(tmp_path, hub="data")
    assert [len(split) for split in read(path)[0].values()] == [1, 1, 1]
    card = "---\nconfigs:\n- config_name: default\n  data_files: ../elsewhere/data/*.parquet\n---\n"
    (tmp_path / "data/README.md").write_text(card)
    with pytest.raises(ValueError, match=r"1 data files that its README.md names lie elsewhere.*elsewhere"):
        read(path)


def test_a_saved_folder_whose_rows_have_paths_is_refused(tmp_path, secret):
    table = pa.table({"part": list(PARTS), "patient": list("abc"), "Mass": [1, 0, 1]})
    whole = datasets.Dataset(table).add_column("image", [{"bytes": png(n), "path": None} for n in range(3)])
    whole.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    path = describe_parquet(tmp_path, hub="saved")
    assert values(load_table(path)[0]) == [0, 1, 2]
    shard = next((tmp_path / "saved").glob("*.arrow"))
    saved = datasets.load_from_disk(tmp_path / "saved").data.table
    images = pa.array([{"bytes": None, "path": secret}] * 3, saved["image"].type)
    changed = saved.set_column(saved.column_names.index("image"), saved.schema.field("image"), images)
    del saved
    shard.unlink()
    with pa.ipc.new_stream(shard, changed.schema) as writer:
        writer.write_table(changed)
    with pytest.raises(ValueError, match=r"saved \(train\): 3 of 3 rows have no image bytes"):
        load_table(path)


def test_the_files_of_an_imagefolder_are_its_own(tmp_path):
    for number, part in enumerate(PARTS):
        pictures(tmp_path / "set" / part, ["scan.png"])
        (tmp_path / "set" / part / "scan.png").write_bytes(png(number))
        (tmp_path / "set" / part / "metadata.csv").write_text(f"file_name,patient,Mass\nscan.png,{part},1\n")
    path = describe_parquet(tmp_path, hub="set", split_column=None)
    assert values(load_table(path)[0]) == [0, 1, 2]


def test_a_prepared_folder_whose_rows_have_paths_is_refused(tmp_path, secret):
    splits, space = load_table(shards(tmp_path / "set"))
    prepare(Source(splits, space, "x"), tmp_path / "ready", Recipe(size=4, resample=3), duplicates="list")
    args = DataArguments(dataset="prepared", prepared=str(tmp_path / "ready"))
    load_source(args)
    shard = next((tmp_path / "ready/test").glob("*.arrow"))
    table = load_prepared(tmp_path / "ready")[0]["test"].data.table
    image = pa.array([{"bytes": None, "path": secret}], table["image"].type)
    changed = table.set_column(table.column_names.index("image"), table.schema.field("image"), image)
    del table
    shard.unlink()
    with pa.ipc.new_stream(shard, changed.schema) as writer:
        writer.write_table(changed)
    # Whoever made the folder made its lists too; without digests, as earlier versions wrote them.
    listed, manifest = tmp_path / "ready/shards.jsonl", tmp_path / "ready/manifest.json"
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    for entry in entries:
        entry["bytes"] = shard.stat().st_size if entry["split"] == "test" else entry["bytes"]
    own = ("sha256", "check", "files", "content_digest")
    kept = ({key: value for key, value in entry.items() if key not in own} for entry in entries)
    listed.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
    values = json.loads(manifest.read_text()) | {"bytes": sum(entry["bytes"] for entry in entries)}
    manifest.write_text(json.dumps({key: value for key, value in values.items() if key not in own}))
    with pytest.raises(ValueError, match="rows without their pixels"):
        load_source(args)


def test_empty_bytes_are_not_replaced_by_the_file_of_the_path(secret):
    with pytest.raises(ImageError, match="empty"):
        grey_of({"image": {"bytes": b"", "path": secret}, "image_id": "x"})
    assert grey_of({"image": {"bytes": png(9), "path": secret}, "image_id": "x"})[0, 0] == 9
    assert grey_of({"image": {"bytes": None, "path": secret}, "image_id": "x"})[0, 0] == 0
