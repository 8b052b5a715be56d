"""Tables, figures, claims and the page, from CSV files. No PyTorch here."""
