"""The commands of the library itself; the jobs and the service bring their own."""
