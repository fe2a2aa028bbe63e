"""History's questions in SQL, an idea a file; ``queries.py`` asks them."""
