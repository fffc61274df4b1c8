"""What runs inside a sandbox, not in the harness: each file stands alone, on Python 3.6 or newer without packages."""
