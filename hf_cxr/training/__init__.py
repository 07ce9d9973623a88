"""Training: the Trainer, the callbacks that change something on the way, feature over-sampling, and checkpoints."""
