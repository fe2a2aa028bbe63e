"""Events and broadcasts through Redis: one log, and how far each subscriber has read it."""
