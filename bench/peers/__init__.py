"""One script for each peer: `peer_<name>.py INPUT_DIR OUTPUT_FILE`, run in that peer's own environment (see bench/environments.py)."""
