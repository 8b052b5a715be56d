"""Tables, figures, claims, page: from CSV files, and without PyTorch."""
