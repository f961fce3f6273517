"""Published results, each as NAME.py (what to train, how to judge and draw) and NAME.toml (paper, claims, scales)."""
