"""``python -m lutq_train``."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main
    except KeyboardInterrupt:  # torch takes a second to import
        sys.exit(1)
    except ImportError as error:
        if error.name != "torch":
            raise
        print("error: training needs PyTorch; install it with: pip install torch", file=sys.stderr)
        sys.exit(2)
    sys.exit(main())
