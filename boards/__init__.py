"""One file per board, each with an object ``BOARD``; see `lutq_hw.board`."""
