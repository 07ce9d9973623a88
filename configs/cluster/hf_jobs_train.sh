#!/bin/bash
# A run on Hugging Face Jobs: rented GPUs, the data from a dataset repository, the model to a private one.
#
#   DATA=ORG/PREPARED MODEL=ORG/NAME bash configs/cluster/hf_jobs_train.sh configs/nih_swin_base.yaml
#   FLAVOR=h200x8 DATA=... MODEL=... bash configs/cluster/hf_jobs_train.sh configs/nih_swin_base.yaml \
#       --per_device_train_batch_size 4 --images_per_step 32
#
# DATA is a (private) dataset repository with a folder that `hf-cxr prepare` wrote; MODEL gets the finished run. The
# words after the file are those of scripts/train.py. Of this checkout, what is committed is sent along, nothing else.
# The images leave your machines: only where their licence and your ethics board permit it (MIMIC-CXR's does not).
# `hf auth login` first. DRY_RUN=--dry-run prints the job and sends nothing.
#
# No requeue: the run folder is on the job's own disk, and a job that is stopped is lost. A bucket
# (--volume hf://buckets/ORG/NAME:/runs) would keep it; whether a run's locks and renames work there was not tried.
#
# Costs: the flavor's price an hour (`hf jobs hardware`), a few minutes of installing, then as docs/scaling.md.
# Run there: not yet. A test compares the flags with those of the installed `hf jobs run`.
set -euo pipefail
: "${DATA:?give the dataset repository with the prepared folder, such as DATA=org/nih_256}"
: "${MODEL:?give the repository for the model, such as MODEL=org/nih_swin_base}"
FLAVOR=${FLAVOR:-a100-large}
TIMEOUT=${TIMEOUT:-24h}
IMAGE=${IMAGE:-python:3.12}  # pip brings PyTorch with CUDA

CODE=$(mktemp -d)
trap 'rm -rf "$CODE"' EXIT
git archive HEAD | tar -x -C "$CODE"

# In single quotes: the job's own shell counts its GPUs.
# shellcheck disable=SC2016
hf jobs run --flavor "$FLAVOR" --timeout "$TIMEOUT" --secrets HF_TOKEN --detach ${DRY_RUN:-} \
    --volume "$CODE:/code" --volume "hf://datasets/$DATA:/data:ro" "$IMAGE" bash -c '
set -euo pipefail
cp -r /code /job && cd /job
pip install --quiet --constraint constraints.txt .
gpus=$(nvidia-smi --list-gpus | wc -l)
several=(); if [ "$gpus" -gt 1 ]; then several=(--multi_gpu); fi
accelerate launch "${several[@]}" --num_processes "$gpus" --num_machines 1 --mixed_precision no --dynamo_backend no \
    scripts/train.py "$@" --dataset prepared --prepared /data --output_dir runs/job \
    --push_to_hub true --hub_model_id "$0" --hub_private_repo true' "$MODEL" "$@"
