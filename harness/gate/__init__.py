"""What it means: the verdict over records, known failures, baselines and claims."""
