"""Outputs: whole or as they were, links written through, and no input, folder, pipe or other format replaced."""

import errno
import os
import re
import socket

import pytest
import torch
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.commands.errors import describe_error
from hf_cxr.files import (
    OutputError,
    check_output_file,
    check_output_folder,
    is_disk_full,
    read_json,
    replace_all,
    replacing,
    write_json,
    write_text,
)
from hf_cxr.words import printable, spreadsheet_cell, utf8_text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, number):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def write():
        with replacing(path) as beside:
            beside.write_text("half")
            raise OSError(number, os.strerror(number), str(beside))

    with pytest.raises(OutputError) as raised:
        write()
    assert raised.value.errno == number
    assert str(path) in str(raised.value)
    assert "Errno" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_full_disk_is_known_by_a_rust_librarys_words_too(tmp_path):
    with pytest.raises(OutputError, match="full"), replacing(tmp_path / "a"):
        raise RuntimeError(f"I/O error: No space left on device (os error {errno.ENOSPC})")


@pytest.mark.parametrize("numbers", [10, 1_000_000])  # torch says it in other words when the first bytes do not fit
def test_a_full_disk_is_known_by_the_words_of_torch_save(numbers):
    with pytest.raises(RuntimeError) as raised, open("/dev/full", "wb") as full:
        torch.save({"weight": torch.zeros(numbers)}, full.name)
    assert is_disk_full(raised.value)
    assert "the disk is full" in describe_error(raised.value)


def test_a_damaged_file_is_not_taken_for_a_full_disk(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(RuntimeError) as raised:
        torch.load(tmp_path / "a.pt")
    assert not is_disk_full(raised.value)
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, "No such file or directory", "a"))


def test_another_error_in_the_block_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        (tmp_path / "absent").read_bytes()
    assert not os.listdir(tmp_path)


def test_permissions_of_an_existing_file_stay_and_a_new_one_has_the_usual(tmp_path):
    (tmp_path / "usual").touch()
    for mode in (0o640, 0o444):
        (tmp_path / f"{mode:o}").touch()
        (tmp_path / f"{mode:o}").chmod(mode)
        write_text(tmp_path / f"{mode:o}", "x")
        assert (tmp_path / f"{mode:o}").stat().st_mode & 0o777 == mode
    write_text(tmp_path / "new", "x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_a_link_and_its_target_gets_the_content(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "target.json").write_text("old")
    (tmp_path / "second").symlink_to("there/target.json")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    write_json(tmp_path / "first", [1])
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "there" / "target.json").read_text() == "[\n  1\n]\n"
    assert os.listdir(tmp_path / "there") == ["target.json"]


def test_a_link_that_leads_nowhere_makes_its_target(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "new")
    check_output_file(tmp_path / "link")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "new").read_text() == "x"


def odd_places(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(tmp_path / "loop")
    (tmp_path / "to_pipe").symlink_to("pipe")
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(".", os.O_RDONLY)
        os.chdir(tmp_path)  # the name of a socket may have some 100 bytes
        bound.bind("socket")
        os.fchdir(here)
        os.close(here)
    return ("pipe", "folder", "loop", "to_pipe", "socket", "file/x", "nowhere/x", "n" * 300)


def test_what_is_not_a_regular_file_is_refused_and_stays(tmp_path):
    for name in odd_places(tmp_path):
        before = sorted(os.listdir(tmp_path))
        for act in (check_output_file, lambda path: write_text(path, "x")):
            with pytest.raises(OutputError) as raised:
                act(tmp_path / name)
            assert str(tmp_path / name) in str(raised.value)
            assert "Errno" not in str(raised.value)
            assert ";" in str(raised.value), "no repair"
        assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "socket").is_socket()
    assert (tmp_path / "loop").is_symlink()


def test_a_check_leaves_nothing_behind(tmp_path):
    check_output_file(tmp_path / "a" / "b" / "c.csv", table=True)
    check_output_folder(tmp_path / "d" / "e")
    assert not os.listdir(tmp_path)


def test_a_name_as_long_as_the_system_takes_is_written(tmp_path):
    path = tmp_path / f"{'n' * 251}.csv"
    check_output_file(path)
    write_text(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_input_is_refused_by_any_name(tmp_path, link):
    source, path = tmp_path / "a.txt", tmp_path / "a.txt"
    source.write_text("precious")
    if link:
        path = tmp_path / "b.txt"
        link(source, path)
    check_output_file(path, inputs=[tmp_path / "other"])
    with pytest.raises(OutputError, match="input"):
        check_output_file(path, inputs=[tmp_path / "other", source])


def image_bytes(tmp_path, kind):
    Image.new("L", (4, 4)).save(tmp_path / "x", format=kind)
    return (tmp_path / "x").read_bytes()


def test_a_table_is_not_written_over_another_format_by_name_or_content(tmp_path):
    for name in ("a.png", "a.JPG", "a.dcm", "a.parquet", "model.safetensors", "a.json", "config.yaml", "a.tif"):
        with pytest.raises(OutputError, match="CSV"):
            check_output_file(tmp_path / name, table=True)
    contents = {kind: image_bytes(tmp_path, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")}
    contents |= {
        "dicom": bytes(128) + b"DICM" + bytes(100),
        "parquet": b"PAR1\x15\x04\x15\x10",
        "safetensors": b"\x40\0\0\0\0\0\0\0{}",
        "zip": b"PK\x03\x04",
        "json": b'{"a": 1}',
        "ascii image": b"P2\n2 2\n255\n0 0 0 0\n",
        "pdf": b"%PDF-1.7\n",
    }
    for kind, content in contents.items():
        path = tmp_path / "predictions"
        path.write_bytes(content)
        with pytest.raises(OutputError, match="CSV"):
            check_output_file(path, table=True)
        assert path.read_bytes() == content, kind
    (tmp_path / "link.csv").symlink_to(tmp_path / "new.png")
    with pytest.raises(OutputError, match=r"\.png"):
        check_output_file(tmp_path / "link.csv", table=True)


def test_tables_of_any_program_are_replaced(tmp_path):
    for content in ("", "image,Effusion\na.png,0.5\n", "a;b\n1;2\n", "Épanchement\n", "-1\t2\n"):
        for name in ("a.csv", "a", "a.TSV", "a.txt", "results.v1", "2024.10"):
            (tmp_path / name).write_text(content, encoding="utf-8")
            check_output_file(tmp_path / name, table=True)
            assert (tmp_path / name).read_text(encoding="utf-8") == content
    (tmp_path / "a.csv").write_bytes("image,Épanchement\n".encode("utf-16"))  # as spreadsheets save it
    check_output_file(tmp_path / "a.csv", table=True)


def test_an_output_folder_is_a_folder_or_can_be_made_and_is_no_input(tmp_path):
    odd_places(tmp_path)
    (tmp_path / "to_folder").symlink_to("folder")
    for good in ("folder", "to_folder", "folder/new/er"):
        check_output_folder(tmp_path / good, inputs=[tmp_path])
    for bad in ("pipe", "loop", "socket", "file", "file/x", "nowhere", "nowhere/x", "n" * 300):
        with pytest.raises(OutputError) as raised:
            check_output_folder(tmp_path / bad)
        assert str(tmp_path / bad) in str(raised.value)
        assert "Errno" not in str(raised.value)
    for bad in ("folder", "to_folder"):
        with pytest.raises(OutputError, match="input"):
            check_output_folder(tmp_path / bad, inputs=[tmp_path / "folder"])
    for bad in ("folder", "folder/new", "to_folder/new"):
        with pytest.raises(OutputError, match="input"):
            check_output_folder(tmp_path / bad, closed=[tmp_path / "folder"])


def test_a_models_files_are_moved_over_old_ones_and_through_links(tmp_path):
    for folder in ("new", "old", "store"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "config.json"):
        (tmp_path / "new" / name).write_text(f"new {name}")
    (tmp_path / "old" / "a").write_text("old")
    (tmp_path / "old" / "b").symlink_to(tmp_path / "store" / "b")
    replace_all(tmp_path / "new", tmp_path / "old", last="config.json")
    assert {name: (tmp_path / "old" / name).read_text() for name in ("a", "b", "config.json")} == {
        name: f"new {name}" for name in ("a", "b", "config.json")
    }
    assert (tmp_path / "old" / "b").is_symlink()


def test_cells_that_begin_like_a_formula_are_quoted_and_numbers_are_not():
    for text in ("=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", "＝1"):
        assert spreadsheet_cell(text) == f"'{text}"
    for value in ("-0.5", "+1e-3", "0.1", -0.5, 3, None, "Effusion", "a=b", "", "'=1"):
        assert spreadsheet_cell(value) == value


def test_names_become_one_line_and_utf8():
    name = os.fsdecode(b"sch\xf6n\n\x1b[2J.png")
    assert printable(name) == r"sch\xf6n\n\x1b[2J.png"
    assert utf8_text(name) == "sch\\xf6n\n\x1b[2J.png"
    assert utf8_text("\ud800") == r"\ud800"  # a name that Windows permits
    assert printable("größe 胸部.png") == utf8_text("größe 胸部.png") == "größe 胸部.png"


def test_the_commands_refuse_an_output_before_their_work(tmp_path, capsys):
    odd_places(tmp_path)
    source = ["--dataset", "phantom", "--phantom_train", "8", "--phantom_validation", "4", "--phantom_test", "4"]
    for command in (["describe", *source, "--out"], ["split", *source, "--out"], ["download", "nih"]):
        for bad in ("pipe", "loop", "file/x", "nowhere/x", "n" * 300):
            assert main([*command, str(tmp_path / bad)]) == 2
            printed = capsys.readouterr()
            (line,) = printed.err.splitlines()
            assert str(tmp_path / bad) in line
            assert "Errno" not in line
            assert not printed.out
    (tmp_path / "notes.csv").symlink_to(tmp_path / "deep" / "split.csv")
    assert main(["split", *source, "--out", str(tmp_path / "notes.csv")]) == 0
    assert (tmp_path / "notes.csv").is_symlink()
    assert (tmp_path / "deep" / "split.csv").is_file()


def test_statistics_do_not_go_among_the_images(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    table = ["--dataset", "table", "--table", "chexpert", "--table_root", str(tmp_path)]
    for out in (tmp_path, tmp_path / "images", tmp_path / "images" / "figures"):
        assert main(["describe", *table, "--out", str(out)]) == 2
        assert "input" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"[" * 99_999, b'{"a": "\xff"}'])
def test_a_damaged_json_file_is_one_line_with_the_file_and_the_repair(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is not .*: write it again$") as error:
        read_json(path, repair="write it again")
    assert "\n" not in str(error.value)
    write_json(path, {"a": [1.5, float("nan")]})
    assert read_json(path, repair="") == {"a": [1.5, None]}
