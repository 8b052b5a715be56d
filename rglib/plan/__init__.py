"""What a configuration asks for: before any of it runs, and without PyTorch."""
