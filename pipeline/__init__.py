"""The contract between ingest and train: records, samples, shards, manifest, store. See FORMAT.md."""
