"""A run folder and the stages that fill it: train, predict, calibrate, measure, document, push."""
