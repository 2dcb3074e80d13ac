"""What the scripts behind `cargo xtask bench` share. Standard library only, Python 3.9 or newer."""
