"""A stream that is stopped resumes as the straight one."""

import pytest
import torch
from test_streaming import stream, write_shards
from tiny import trainer

from hf_cxr.data import (
    label_matrix,
    load_streamed,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def split(shards):
    return load_streamed(shards / "table.yaml")[0]["train"]


def stepwise(folder, split, **keys):
    streamed = stream(split, step_size=8, batch_size=4, seed=3)
    run = trainer(
        folder,
        dataset=[{"labels": row} for row in label_matrix(split)],
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=13,  # the epoch has 10
        **keys,
    )
    run.train_dataset, run.sampler = streamed, None
    seen = []
    augment = run.pixels.augment
    run.pixels.augment = lambda pixels, row, epoch: seen.append((epoch, *row.tolist())) or augment(pixels, row, epoch)
    return run, seen


def test_a_resumed_stream_goes_on_as_the_straight_one(tmp_path, split):
    straight, seen = stepwise(tmp_path / "a", split)
    straight.train()
    assert len(seen) == 40  # batches of 4
    assert straight.clock.images == 19 * 8  # all steps but the first
    assert sorted(row for epoch, *rows in seen if epoch == 1 for row in rows) == list(range(80))
    again, rest = stepwise(tmp_path / "b", split)
    again.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-13"))
    assert rest == seen[26:]
    for one, two in zip(straight.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
