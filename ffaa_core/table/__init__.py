"""The verdict table: exactly one row per image and fingerprint, on local disk or S3, whatever fails."""
