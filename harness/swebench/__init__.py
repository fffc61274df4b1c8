"""SWE-bench: environment images and grading by the official rules."""
