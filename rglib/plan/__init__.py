"""What a configuration asks for, before any of it runs. No PyTorch here."""
