"""Sweeps on Ray Tune over encoder and backbone hyper-parameters: `python -m tune`."""
