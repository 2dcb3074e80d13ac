"""Tests of the scripts behind `cargo xtask bench`: python3 -m unittest discover -s bench/tests -t bench."""
