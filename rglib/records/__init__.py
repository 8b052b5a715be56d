"""What a result was made with: hashes of code and data, records beside results, and their check."""
