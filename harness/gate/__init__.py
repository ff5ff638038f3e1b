"""The verdict on a run: records, known failures, baselines and claims."""
