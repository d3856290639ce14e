"""Objects under opaque keys, on local disk and S3, with one verb that decides races: create-only writing."""
