"""``python -m actorbus``."""

from actorbus.cli import main

if __name__ == "__main__":
    main()
