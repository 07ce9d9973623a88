"""What a saved model is called where others read it."""

from hf_cxr.saved_models import public_name


def test_a_folder_is_called_by_its_own_name_and_a_hub_id_stays(tmp_path, monkeypatch):
    run = tmp_path / "home-of-somebody" / "first"
    run.mkdir(parents=True)
    (tmp_path / "latest").symlink_to(run)
    monkeypatch.chdir(run)
    assert public_name(run) == public_name(f"{run}/") == public_name(".") == public_name("../first") == "first"
    assert public_name(tmp_path / "latest") == "first"
    assert public_name(tmp_path / "home-of-somebody" / "gone") == "gone"
    assert public_name("somebody/chest") == "somebody/chest"
    assert public_name("/") == "/"
