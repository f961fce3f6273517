"""Published results, each as NAME.py (what to train, how to judge, what to draw) and NAME.toml (paper, claims, scales)."""
