"""All keys of runs that `golden.py` uses. If the product renames a key, rename it here."""

SWIN = {
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "use_absolute_embeddings": True,
    "initializer_range": 0.1,
    "drop_path_rate": 0.0,
}
TINY = {
    "dataset": "phantom",
    "phantom_train": 48,
    "phantom_validation": 96,
    "phantom_test": 64,
    "phantom_size": 40,
    "phantom_prevalence_floor": 0.2,
    "image_size": 32,
    "resize_size": 36,
    "model_kwargs": SWIN,
    "rotation_degrees": 5.0,
    "learning_rate": 3.0e-3,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 16,
    "num_train_epochs": 3,
    "logging_steps": 1,
    "bootstrap_resamples": 50,
    "disable_tqdm": True,
}
STRAIGHT = TINY | {
    "loss": "class_aware",
    "loss_kwargs": {"margin": 0.1, "class_weights": "effective_number", "beta": 0.99},
    "model_kwargs": SWIN | {"drop_path_rate": 0.2},
    "num_train_epochs": 4,
}
DEFERRED = TINY | {
    "loss": "ldam",
    "loss_kwargs": {"max_margin": 0.3},
    "reweight_from_epoch": 2,
    "sampler": "repeat_factor",
    "sampler_kwargs": {"repeat_factor_threshold": 0.3},
    "ema_decay": 0.9,
    "seed": 3,
}
SECOND_STAGE = TINY | {  # and model_name_or_path: the straight run
    "loss": "asymmetric",
    "loss_kwargs": {"gamma_pos": 0.5, "gamma_neg": 2.0, "margin": 0.02},
    "freeze_backbone": True,
    "sampler": "class_aware",
    "sampler_kwargs": {"class_aware_no_finding": False},
    "feature_oversampling": 3,
}
TWO_PROCESSES = TINY | {
    "loss": "focal",
    "loss_kwargs": {"gamma": 1.5, "alpha": 0.4},
    "label_smoothing_factor": 0.05,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
}
STREAMED = TINY | {  # and table: the shards' description
    "dataset": "table",
    "streaming": True,
    "streaming_buffer": 16,
    "loss": "hill",
    "loss_kwargs": {"gamma": 1.0, "logit_margin": 0.5, "hill_lambda": 2.0},
    "head_bias": "zero",
}
OTHER_PHANTOMS = {"dataset": "phantom", "phantom_seed": 7, "phantom_test": 80, "phantom_size": 48}
SHARDS = {
    "name": "Shards",
    "files": {"all": "data/*.parquet"},
    "split_column": "part",
    "image_column": "image",
    "image_id": "name",
    "findings": ["Edema", "Fracture", "Pleural Effusion", "Mass", "Cardiomegaly"],
    "blank": "unknown",
    "patient_column": "patient",
}
COMPARISON = {
    "base": TINY | {"phantom_train": 32, "loss": "class_aware", "loss_kwargs": {"margin": 0.1}, "num_train_epochs": 2},
    "methods": {
        "Pos-weighted": {"loss": "pos_weighted", "loss_kwargs": {"pos_weight_cap": 8.0}},
        "Balanced focal, mixed sampling": {
            "loss": "class_balanced_focal",
            "loss_kwargs": {"gamma": 1.0},
            "sampler": "mixed",
            "sampler_kwargs": {"oversample_share": 0.5, "undersample_ratio": 0.5},
        },
    },
    "baseline": "Pos-weighted",
    "seeds": [0, 1],
    "tune": {"grid": {"learning_rate": [1.0e-3, 1.0e-2]}, "seed": 5, "by": "ap"},
    "tiers": {"head": 9, "tail": 6},
    "resamples": 200,
}
# What golden_old/prepared, split.csv and folds.csv were made of; golden_old/run and unfinished are the straight run.
OLD_PHANTOMS = TINY | {
    "phantom_train": 32,
    "phantom_validation": 16,
    "phantom_test": 16,
}
ON_OLD_PREPARED = {key: value for key, value in OLD_PHANTOMS.items() if not key.startswith("phantom_")} | {
    "dataset": "prepared",  # and prepared: the folder
    "loss": "distribution_balanced",
    "loss_kwargs": {"map_mu": 0.3, "negative_scale": 1.5},
    "sampler": "over",
    "sampler_kwargs": {"oversample_share": 0.5},
}
DESCRIBED = TINY | {"sampler": "repeat_factor", "sampler_kwargs": {"repeat_factor_threshold": 0.3}}
NIH = ("--dataset", "nih")  # and --nih_root
NIH_SAMPLER = ("--sampler", "class_aware")
