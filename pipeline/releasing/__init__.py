"""Parts of a release: what it holds, what it says about itself, how it is checked and compared."""
