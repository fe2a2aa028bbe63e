"""Messages over Redis: each agent's inbox is a log with one owner."""
