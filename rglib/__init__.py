"""Regularizing gradients for multi-task image restoration (Willingham et al., VISAPP 2024)."""

__version__ = "0.1.0"
