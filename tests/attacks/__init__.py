"""Attacks on everything that reads a file, and on everything that writes one: `PYTHONPATH=tests python -m attacks`.

damage.py what is done to a file; targets.py who reads it, and what counts as right; harness.py runs the cases within
bounds of time and memory; kills.py kills processes while they write.
"""
