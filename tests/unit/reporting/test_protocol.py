"""Published systems are of the official list alone; limits are those of the data."""

from hf_cxr.reporting.document import Heading, Table
from hf_cxr.reporting.protocol import PUBLISHED_NIH14, limits, network_facts, published
from hf_cxr.words import NOT_A_DEVICE


def test_published_systems_are_for_their_data_alone_and_end_with_this_run():
    assert published("a hospital's table") == ()
    heading, table = published("ChestX-ray14")
    assert isinstance(heading, Heading)
    assert isinstance(table, Table)
    assert len(table.rows) == len(PUBLISHED_NIH14)
    assert max(float(row[3]) for row in table.rows) == 0.835  # nothing above it is of this list
    assert "ot comparable with the tables above" in table.caption
    assert "Yao et al. 2017, 0.803" in table.caption
    assert not any("2017" in row[0] and row[3] == "0.803" for row in table.rows)
    own = ("this run (a)", "28 M parameters", "random", "0.801 (0.790–0.812)")
    _, table = published("ChestX-ray14", own)
    assert tuple(table.rows[-1][:4]) == own
    assert table.bold == {(len(PUBLISHED_NIH14), column) for column in range(5)}


def test_limits_say_that_an_empty_row_is_not_a_normal_image_where_labels_were_mined():
    mined = limits("ChestX-ray14", synthetic=False, own_split=True)
    table = limits("a hospital's table", synthetic=False)
    phantoms = limits("phantoms", synthetic=True, own_split=True)
    assert any("not a normal image" in sentence for sentence in mined)
    assert any("mined from radiology reports" in sentence for sentence in mined)
    for sentences in (table, phantoms):
        assert not any("mined" in sentence for sentence in sentences)
    assert any("same source" in sentence for sentence in mined)
    assert not any("same source" in sentence for sentence in table)
    for sentences in (mined, table, phantoms):
        assert any("randomness of training" in sentence for sentence in sentences)
        assert sentences[-1] == NOT_A_DEVICE


def test_the_network_and_its_batch_norm_are_named_where_a_run_says_them():
    norm = {"layers": 53, "images": 32}
    protocol = {"network": {"name": "ResNet", "architecture": "resnet", "batch_norm": norm}}
    facts = dict(network_facts(protocol, {"parameters": 23_536_718}))
    assert facts["network"] == "ResNet, 23.5 M parameters"
    assert "53 layers" in facts["batch norm"]
    assert "32 images" in facts["batch norm"]
    protocol["network"]["batch_norm"] = None
    assert list(dict(network_facts(protocol, {}))) == ["network"]
    assert network_facts({}, {}) == []  # of an earlier version
