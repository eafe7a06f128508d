"""What nodes synchronise: files (config, jobs, recordings, sounds) and the database."""
