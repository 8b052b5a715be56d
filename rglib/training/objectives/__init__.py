"""What each stage of training minimises; one module for each family of objectives."""
