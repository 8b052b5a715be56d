"""Stages of training: objectives, the loop, checkpoints, several processes."""
